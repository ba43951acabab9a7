// The parts of a decoder layer that are neither a matrix product nor attention: RMSNorm with its residual, SwiGLU.

#include "vector.h"

#define BLOCK 64  // rows whose share of a weight's gradient is summed together; fixed, so that threads do not matter

// y = x + r (r may be null: then y is x and is not written); h = y / rms(y) * weight. rstd [n] is kept for the way back.
void norm_forward(long n, long width, float eps, const float *x, const void *r, int r_half, const float *weight,
                  float *y, void *h, int h_half, float *rstd) {
#pragma omp parallel
    {
        float *row = scratch(2 * width), *out = row + width;
#pragma omp for schedule(static)
        for (long i = 0; i < n; i++) {
            read_row(row, x + i * width, width, 0);
            if (r) {
                read_row(out, element(r, i * width, r_half), width, r_half);
                for (long j = 0; j < width; j++) row[j] += out[j];
                memcpy(y + i * width, row, width * 4);
            }
            vec squares = {};
            long j = 0;
            for (; j + LANES <= width; j += LANES) squares += load(row + j) * load(row + j);
            float total = sum_of(squares);
            for (; j < width; j++) total += row[j] * row[j];
            float inverse = 1.0f / sqrtf(total / width + eps);
            rstd[i] = inverse;
            for (j = 0; j < width; j++) out[j] = row[j] * inverse * weight[j];
            write_row(slot_of(h, i * width, h_half), out, width, h_half);
        }
        free(row);
    }
}

// From the gradients of y (may be null) and h: that of x, that of r where wanted, and the weight's, in blocks
// [ceil(n / BLOCK), width] to be added up.
void norm_backward(long n, long width, const float *y, const float *rstd, const float *weight, const float *from_y,
                   const void *from_h, int h_half, float *to_x, void *to_r, int r_half, float *to_weight) {
    long blocks = (n + BLOCK - 1) / BLOCK;
#pragma omp parallel
    {
        float *g = scratch(width);
#pragma omp for schedule(static)
        for (long block = 0; block < blocks; block++) {
            float *sums = to_weight + block * width;
            memset(sums, 0, width * 4);
            for (long i = block * BLOCK; i < least(n, (block + 1) * BLOCK); i++) {
                const float *x = y + i * width;
                float *out = to_x + i * width, inverse = rstd[i];
                read_row(g, element(from_h, i * width, h_half), width, h_half);
                for (long j = 0; j < width; j++) sums[j] += g[j] * x[j] * inverse;
                vec dots = {};
                long j = 0;
                for (; j + LANES <= width; j += LANES) dots += load(g + j) * load(weight + j) * load(x + j);
                float dot = sum_of(dots);
                for (; j < width; j++) dot += g[j] * weight[j] * x[j];
                float shift = dot * inverse * inverse / width;
                for (j = 0; j < width; j++) out[j] = inverse * (g[j] * weight[j] - x[j] * shift);
                if (from_y)
                    for (j = 0; j < width; j++) out[j] += from_y[i * width + j];
                if (to_r) write_row(slot_of(to_r, i * width, r_half), out, width, r_half);
            }
        }
        free(g);
    }
}

// out = silu(gate) * up; gate and up are rows of `width` that begin `row` elements apart.
void swiglu_forward(long n, long width, const void *gate, const void *up, long row, int half, void *out) {
#pragma omp parallel
    {
        float *a = scratch(2 * width + LANES), *b = a + width;
#pragma omp for schedule(static)
        for (long i = 0; i < n; i++) {
            read_row(a, element(gate, i * row, half), width, half);
            read_row(b, element(up, i * row, half), width, half);
            long j = 0;
            for (; j + LANES <= width; j += LANES) {
                vec x = load(a + j);
                store(a + j, x / (1.0f + exp_of(-x)) * load(b + j));
            }
            for (; j < width; j++) a[j] = a[j] / (1.0f + expf(-a[j])) * b[j];
            write_row(slot_of(out, i * width, half), a, width, half);
        }
        free(a);
    }
}

// Gradients of gate and up, each [n, width] with rows `row` elements apart.
void swiglu_backward(long n, long width, const void *gate, const void *up, long row, int half, const void *from,
                     void *to_gate, void *to_up) {
#pragma omp parallel
    {
        float *a = scratch(3 * width + LANES), *b = a + width, *g = b + width;
#pragma omp for schedule(static)
        for (long i = 0; i < n; i++) {
            read_row(a, element(gate, i * row, half), width, half);
            read_row(b, element(up, i * row, half), width, half);
            read_row(g, element(from, i * width, half), width, half);
            long j = 0;
            for (; j + LANES <= width; j += LANES) {
                vec x = load(a + j), s = 1.0f / (1.0f + exp_of(-x)), d = load(g + j);
                store(a + j, d * load(b + j) * s * (1.0f + x * (1.0f - s)));
                store(b + j, d * x * s);
            }
            for (; j < width; j++) {
                float x = a[j], s = 1.0f / (1.0f + expf(-x)), d = g[j];
                a[j] = d * b[j] * s * (1.0f + x * (1.0f - s));
                b[j] = d * x * s;
            }
            write_row(slot_of(to_gate, i * row, half), a, width, half);
            write_row(slot_of(to_up, i * row, half), b, width, half);
        }
        free(a);
    }
}
