// The gradient of a linear layer's weight: a product whose inner dimension is the tokens, which runs over both operands as
// they lie, without turning either.

#include "vector.h"

#define DEPTH 256  // tokens at a time: a panel of DEPTH x TILE inputs stays in the first-level cache
#define ROWS 128
#define NEAR 1024   // rows of more outputs than this are copied first: their columns lie too far apart for the caches

#if HALF_PRODUCTS
// Tokens at, at + 1, ... of x [n, width], two by two, `count` columns from `from`: to [pairs, across]; an odd end gets a zero.
static void pair_rows(uint32_t *to, long across, const bf16 *x, long width, long at, long n, long from, long count) {
    for (long k = at; k < least(n, at + 2 * DEPTH); k += 2) {
        const bf16 *even = x + k * width + from, *odd = even + width;
        uint32_t *row = to + (k - at) / 2 * across;
        if (k + 1 < n)
            for (long j = 0; j < count; j++) row[j] = (uint32_t)even[j] | (uint32_t)odd[j] << 16;
        else
            for (long j = 0; j < count; j++) row[j] = even[j];
    }
}
#endif

// to [outputs, inputs] = flow' x; flow [n, outputs], x [n, inputs]; inputs is a multiple of TILE.
void weight_gradient(long n, long outputs, long inputs, const float *flow, const float *x, float *to) {
    long panels = inputs / TILE, parts = (outputs + ROWS - 1) / ROWS, turn = panels * parts < 64 ? 1 : 8;
    long turns = (panels + turn - 1) / turn;
#pragma omp parallel
    {
        float *panel = scratch(DEPTH * TILE), *strip = scratch(DEPTH * ROWS);
#pragma omp for schedule(dynamic, 1)
        for (long task = 0; task < turns * parts; task++) {
            long from = task % parts * ROWS, rows = least(ROWS, outputs - from), first = task / parts * turn;
            for (long at = 0; at < n; at += DEPTH) {
                long depth = least(DEPTH, n - at);
                const float *left = flow + at * outputs + from;
                long across = outputs;
                if (outputs > NEAR) {
                    for (long k = 0; k < depth; k++) memcpy(strip + k * ROWS, left + k * outputs, rows * 4);
                    left = strip, across = ROWS;
                }
                for (long column = first * TILE; column < least(inputs, (first + turn) * TILE); column += TILE) {
                    for (long k = 0; k < depth; k++) memcpy(panel + k * TILE, x + (at + k) * inputs + column, TILE * 4);
                    product(rows, TILE, depth, left, 1, across, panel, TILE, to + from * inputs + column, inputs, at > 0);
                }
            }
        }
        free(panel);
        free(strip);
    }
}

// The same of bfloat16 operands, with float32 sums. Only where the processor multiplies bfloat16; see half_products.
void weight_gradient_half(long n, long outputs, long inputs, const bf16 *flow, const bf16 *x, float *to) {
#if HALF_PRODUCTS
    long panels = inputs / TILE, parts = (outputs + ROWS - 1) / ROWS, turn = panels * parts < 64 ? 1 : 8;
    long turns = (panels + turn - 1) / turn;
#pragma omp parallel
    {
        uint32_t *panel = (uint32_t *)scratch(DEPTH * TILE), *strip = (uint32_t *)scratch(DEPTH * ROWS);
#pragma omp for schedule(dynamic, 1)
        for (long task = 0; task < turns * parts; task++) {
            long from = task % parts * ROWS, rows = least(ROWS, outputs - from), first = task / parts * turn;
            for (long at = 0; at < n; at += 2 * DEPTH) {
                long pairs = (least(2 * DEPTH, n - at) + 1) / 2;
                pair_rows(strip, ROWS, flow, outputs, at, n, from, rows);
                for (long column = first * TILE; column < least(inputs, (first + turn) * TILE); column += TILE) {
                    pair_rows(panel, TILE, x, inputs, at, n, column, TILE);
                    product_half(rows, pairs, strip, 1, ROWS, panel, to + from * inputs + column, inputs, at > 0);
                }
            }
        }
        free(panel);
        free(strip);
    }
#else
    (void)n, (void)outputs, (void)inputs, (void)flow, (void)x, (void)to;
#endif
}

int half_products(void) { return HALF_PRODUCTS; }

int byte_products(void) { return BYTE_PRODUCTS; }

long tile_width(void) { return TILE; }
