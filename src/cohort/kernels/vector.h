// Vectors of floats for whatever the compiler targets, bfloat16 rows, and a small matrix product.

#pragma once

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#define TILE_ROWS 8  // 8 x 2 accumulators of 32 registers
#elif defined(__AVX__)
#define LANES 8
#define TILE_ROWS 4
#else
#define LANES 4
#define TILE_ROWS 4
#endif
#define TILE (2 * LANES)  // columns that a product works on at once; widths of its operands are padded to it

typedef float vec __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef uint32_t uvec __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef uint16_t bf16;
typedef bf16 hvec __attribute__((vector_size(LANES * 2), aligned(2), may_alias));

#define INLINE static inline __attribute__((always_inline))

INLINE long padded(long n) { return (n + TILE - 1) / TILE * TILE; }
INLINE long least(long a, long b) { return a < b ? a : b; }
INLINE long most(long a, long b) { return a > b ? a : b; }

INLINE vec load(const float *x) { return *(const vec *)x; }
INLINE void store(float *x, vec v) { *(vec *)x = v; }
INLINE vec splat(float x) { return x - (vec){}; }  // x + 0 would be an addition: it turns -0 into 0
INLINE vec pick(ivec which, vec yes, vec no) { return (vec)(((ivec)yes & which) | ((ivec)no & ~which)); }
INLINE vec larger(vec a, vec b) { return pick(b > a, b, a); }  // a NaN in `a` stays

INLINE float sum_of(vec v) {
    float total = 0;
    for (int i = 0; i < LANES; i++) total += v[i];
    return total;
}

INLINE float largest_of(vec v) {
    float best = v[0];
    for (int i = 1; i < LANES; i++) best = v[i] > best ? v[i] : best;
    return best;
}

// e^x to within 2 units in the last place for x <= 88; 0 below -87; a NaN stays. x = n log 2 + r, and a polynomial in |r| <= log(2) / 2.
INLINE vec exp_of(vec x) {
    const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    vec clamped = larger(x, splat(-87.3f));
    vec shifted = clamped * 1.44269504088896341f + magic;
    vec n = shifted - magic;
    vec r = clamped - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    vec p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    vec power = (vec)(((ivec)shifted - (ivec)splat(magic) + 127) << 23);  // 2^n
    return pick(x < splat(-87.3f), (vec){}, p * power);
}

INLINE float widen(bf16 x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

INLINE bf16 narrow(float x) {  // to the nearest, ties to even
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fc0;
    return (bf16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// Arrays that may be float32 or bfloat16 are passed as bytes with a flag.
INLINE const void *element(const void *x, long i, int half) { return (const char *)x + i * (half ? 2 : 4); }
INLINE void *slot_of(void *x, long i, int half) { return (char *)x + i * (half ? 2 : 4); }

INLINE void read_row(float *restrict to, const void *restrict from, long n, int half) {
    if (half)
        for (long i = 0; i < n; i++) to[i] = widen(((const bf16 *)from)[i]);
    else
        memcpy(to, from, n * 4);
}

INLINE void write_row(void *restrict to, const float *restrict from, long n, int half) {
    if (half)
        for (long i = 0; i < n; i++) ((bf16 *)to)[i] = narrow(from[i]);
    else
        memcpy(to, from, n * 4);
}

INLINE vec load_as(const void *x, long i, const int half) {
    if (!half) return load((const float *)x + i);
    return (vec)(__builtin_convertvector(*(const hvec *)((const bf16 *)x + i), uvec) << 16);
}

INLINE float *scratch(long floats) {
    float *memory = aligned_alloc(64, (floats * 4 + 63) / 64 * 64);
    if (!memory) abort();
    return memory;
}

// c[rows, TILE] (+)= a[rows, depth] b[depth, TILE], where a's element (i, k) is a[i * down + k * across], and b is of
// bfloat16 where `half`. On the way `row_ahead` bytes for each row are fetched from `ahead` (null: none), for a product
// that comes later.
INLINE void tile_product(const int rows, long depth, const float *a, long down, long across, const void *b, long b_row,
                         const int half, float *c, long c_row, int add, const char *ahead, long row_ahead) {
    long step = ahead ? rows * row_ahead / depth : 0;
    vec sums[TILE_ROWS][2];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) {
        sums[i][0] = add ? load(c + i * c_row) : (vec){};
        sums[i][1] = add ? load(c + i * c_row + LANES) : (vec){};
    }
    for (long k = 0; k < depth; k++) {
        if (ahead) __builtin_prefetch(ahead + k * step, 0, 2);
        vec left = load_as(b, k * b_row, half), right = load_as(b, k * b_row + LANES, half);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            vec x = splat(a[i * down + k * across]);
            sums[i][0] += x * left;
            sums[i][1] += x * right;
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) {
        store(c + i * c_row, sums[i][0]);
        store(c + i * c_row + LANES, sums[i][1]);
    }
}

// c[m, n] (+)= a[m, depth] b[depth, n]; n is a multiple of TILE.
INLINE void product_ahead(long m, long n, long depth, const float *a, long down, long across, const void *b, long b_row,
                          const int half, float *c, long c_row, int add, const char *ahead, long row_ahead) {
#define ROWS_AT_ONCE(rows)                                                                                            \
    for (; i + rows <= m; i += rows)                                                                                  \
        tile_product(rows, depth, a + i * down, down, across, element(b, column, half), b_row, half,                  \
                     c + i * c_row + column, c_row, add, ahead ? ahead + i * row_ahead : NULL, row_ahead)
    for (long column = 0; column < n; column += TILE) {
        long i = 0;
#if TILE_ROWS == 8
        ROWS_AT_ONCE(8);
#endif
        ROWS_AT_ONCE(4);
        ROWS_AT_ONCE(2);
        ROWS_AT_ONCE(1);
    }
#undef ROWS_AT_ONCE
}

static __attribute__((unused)) void product(long m, long n, long depth, const float *a, long down, long across,
                                            const float *b, long b_row, float *c, long c_row, int add) {
    product_ahead(m, n, depth, a, down, across, b, b_row, 0, c, c_row, add, NULL, 0);
}

// As `product`, of b in bfloat16.
static __attribute__((unused)) void product_widened(long m, long n, long depth, const float *a, long down, long across,
                                                    const bf16 *b, long b_row, float *c, long c_row, int add) {
    product_ahead(m, n, depth, a, down, across, b, b_row, 1, c, c_row, add, NULL, 0);
}

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#if defined(__AVX512BF16__)
#define HALF_PRODUCTS 1

// As tile_product, of pairs of bfloat16 that follow each other in the inner dimension: a [rows, pairs], b [pairs, TILE].
INLINE void tile_product_half(const int rows, long pairs, const uint32_t *a, long down, long across, const uint32_t *b,
                              float *c, long c_row, int add, const char *ahead, long row_ahead) {
    long step = ahead ? rows * row_ahead / pairs : 0;
    __m512 sums[TILE_ROWS][2];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) {
        sums[i][0] = add ? _mm512_loadu_ps(c + i * c_row) : _mm512_setzero_ps();
        sums[i][1] = add ? _mm512_loadu_ps(c + i * c_row + LANES) : _mm512_setzero_ps();
    }
    for (long k = 0; k < pairs; k++) {
        if (ahead) __builtin_prefetch(ahead + k * step, 0, 2);
        __m512bh left = (__m512bh)_mm512_loadu_si512(b + k * TILE);
        __m512bh right = (__m512bh)_mm512_loadu_si512(b + k * TILE + LANES);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            __m512bh x = (__m512bh)_mm512_set1_epi32((int)a[i * down + k * across]);
            sums[i][0] = _mm512_dpbf16_ps(sums[i][0], x, left);
            sums[i][1] = _mm512_dpbf16_ps(sums[i][1], x, right);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) {
        _mm512_storeu_ps(c + i * c_row, sums[i][0]);
        _mm512_storeu_ps(c + i * c_row + LANES, sums[i][1]);
    }
}

// c [m, TILE] (+)= a [m, pairs] b [pairs, TILE].
INLINE void product_half_ahead(long m, long pairs, const uint32_t *a, long down, long across, const uint32_t *b, float *c,
                               long c_row, int add, const char *ahead, long row_ahead) {
    long i = 0;
#define ROWS_AT_ONCE(rows)                                                                                            \
    for (; i + rows <= m; i += rows)                                                                                  \
        tile_product_half(rows, pairs, a + i * down, down, across, b, c + i * c_row, c_row, add,                      \
                          ahead ? ahead + i * row_ahead : NULL, row_ahead)
    ROWS_AT_ONCE(8);
    ROWS_AT_ONCE(4);
    ROWS_AT_ONCE(2);
    ROWS_AT_ONCE(1);
#undef ROWS_AT_ONCE
}

static __attribute__((unused)) void product_half(long m, long pairs, const uint32_t *a, long down, long across,
                                                 const uint32_t *b, float *c, long c_row, int add) {
    product_half_ahead(m, pairs, a, down, across, b, c, c_row, add, NULL, 0);
}
#else
#define HALF_PRODUCTS 0
#endif

// Products of bytes: GROUP inputs share a scale, in rows and in weights, so that an outlier costs its own group alone.
#define GROUP 64
#if defined(__AVX512VNNI__)
#define BYTE_PRODUCTS 1
#else
#define BYTE_PRODUCTS 0
#endif
INLINE long groups_of(long width) { return (width + GROUP - 1) / GROUP; }
INLINE long quads_of(long width) { return (width + 3) / 4; }
INLINE long rounded_row(long width) { return quads_of(width) + groups_of(width); }  // words

INLINE float largest_in(const float *x, long count) {
    float peak = 0;
    for (long k = 0; k < count; k++) peak = fabsf(x[k]) > peak ? fabsf(x[k]) : peak;
    return peak;
}

// A row in words of four bytes, x / scale + 128 to the nearest, and behind them the scales of its groups.
INLINE void round_row(uint32_t *to, const float *x, long width) {
    uint8_t *bytes = (uint8_t *)to;
    for (long g = 0; g < groups_of(width); g++) {
        long from = g * GROUP, count = least(GROUP, width - from);
        float peak = largest_in(x + from, count), scale = peak / 127.0f, over = peak > 0 ? 127.0f / peak : 0;
        for (long k = from; k < from + count; k++) bytes[k] = (uint8_t)((int32_t)rintf(x[k] * over) + 128);
        memcpy(to + quads_of(width) + g, &scale, 4);
    }
    for (long k = width; k < 4 * quads_of(width); k++) bytes[k] = 128;
}

// As tile_product, of rounded rows a and a panel b [quads, TILE] of four signed bytes each. A group's sum begins at its
// `shift` [groups, TILE] (for the 128 of the rows) and counts as often as its `scale` [groups, TILE] and that of the row say.
INLINE void tile_product_bytes(const int rows, long width, const uint32_t *a, const uint32_t *b, const float *scale,
                               const int32_t *shift, float *c, long c_row, const char *ahead, long row_ahead) {
    long quads = quads_of(width), row = rounded_row(width), step = rows * row_ahead / quads;
    vec totals[4][2] = {};
    for (long g = 0; g < groups_of(width); g++) {
        long from = g * GROUP / 4, until = least(quads, from + GROUP / 4);
        ivec sums[4][2];
#pragma GCC unroll 4
        for (int i = 0; i < rows; i++) {
            sums[i][0] = *(const ivec *)(shift + g * TILE);
            sums[i][1] = *(const ivec *)(shift + g * TILE + LANES);
        }
        for (long k = from; k < until; k++) {
            __builtin_prefetch(ahead + k * step, 0, 2);
#if BYTE_PRODUCTS
            __m512i left = _mm512_loadu_si512(b + k * TILE), right = _mm512_loadu_si512(b + k * TILE + LANES);
#pragma GCC unroll 4
            for (int i = 0; i < rows; i++) {
                __m512i x = _mm512_set1_epi32((int)a[i * row + k]);
                sums[i][0] = (ivec)_mm512_dpbusd_epi32((__m512i)sums[i][0], x, left);
                sums[i][1] = (ivec)_mm512_dpbusd_epi32((__m512i)sums[i][1], x, right);
            }
#else
            const int8_t *weight = (const int8_t *)(b + k * TILE);
            for (int i = 0; i < rows; i++)
                for (int t = 0; t < 4; t++) {
                    int32_t x = ((const uint8_t *)(a + i * row + k))[t];
                    for (int j = 0; j < TILE; j++) sums[i][j / LANES][j % LANES] += x * weight[4 * j + t];
                }
#endif
        }
        vec first = load(scale + g * TILE), second = load(scale + g * TILE + LANES);
#pragma GCC unroll 4
        for (int i = 0; i < rows; i++) {
            float of_row;
            memcpy(&of_row, a + i * row + quads + g, 4);
            totals[i][0] += __builtin_convertvector(sums[i][0], vec) * (first * of_row);
            totals[i][1] += __builtin_convertvector(sums[i][1], vec) * (second * of_row);
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++) {
        store(c + i * c_row, totals[i][0]);
        store(c + i * c_row + LANES, totals[i][1]);
    }
}

// c [m, TILE] = rounded rows a [m] times a panel b.
INLINE void product_bytes_ahead(long m, long width, const uint32_t *a, const uint32_t *b, const float *scale,
                                const int32_t *shift, float *c, long c_row, const char *ahead, long row_ahead) {
    long i = 0;
#define ROWS_AT_ONCE(rows)                                                                                            \
    for (; i + rows <= m; i += rows)                                                                                  \
        tile_product_bytes(rows, width, a + i * rounded_row(width), b, scale, shift, c + i * c_row, c_row,            \
                           ahead + i * row_ahead, row_ahead)
    ROWS_AT_ONCE(4);
    ROWS_AT_ONCE(2);
    ROWS_AT_ONCE(1);
#undef ROWS_AT_ONCE
}
