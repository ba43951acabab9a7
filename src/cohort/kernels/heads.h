// What happens to one query or key head before attention: its norm (Qwen 3) and the rotary embedding.

#pragma once

#include "vector.h"

#define HIDDEN -1e30f  // a masked score: finite, so that a row that sees nothing of a part stays a number

// x / rms(x) * weight; returns 1 / rms.
INLINE float normalise(float *x, const float *weight, long size, float eps) {
    float total = 0;
    for (long j = 0; j < size; j++) total += x[j] * x[j];
    float inverse = 1.0f / sqrtf(total / size + eps);
    for (long j = 0; j < size; j++) x[j] = x[j] * inverse * weight[j];
    return inverse;
}

INLINE void rotate(float *x, const float *cos, const float *sin, long half) {
    for (long j = 0; j < half; j++) {
        float a = x[j], b = x[j + half];
        x[j] = a * cos[j] - b * sin[j];
        x[j + half] = b * cos[j] + a * sin[j];
    }
}

INLINE void rotate_back(float *x, const float *cos, const float *sin, long half) {
    for (long j = 0; j < half; j++) {
        float a = x[j], b = x[j + half];
        x[j] = a * cos[j] + b * sin[j];
        x[j + half] = b * cos[j] - a * sin[j];
    }
}
