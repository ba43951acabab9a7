// One token for each of n rows, through the whole model in one call.
//
// Attention is over the row's prompt, which the rows of a group share and read together, and over the row's own tokens.
// Keys lie in columns [wide, capacity], so that scores are a product of matrices. Weights are packed: panels of TILE
// outputs, each [inputs, TILE], so that a product reads them once and in order. A weight in bytes is multiplied with rows
// that are rounded to bytes; everything between two products is float32 as ever.

#include "heads.h"

#ifdef _OPENMP
#include <omp.h>
#else
#define omp_get_max_threads() 1
#define omp_get_wtime() 0.0
#endif

#define ROWS 32   // rows that one task of a product works on
#define ALONE 32  // rows that a thread must have to go through the model by itself,
#define FEW 4     // where there are no more threads than this

typedef struct {
    long heads, kv_heads, size;
    long slots, prefix_capacity, own_capacity;
    const int64_t *prefix_length;  // [slots]
    const float *cos, *sin;        // [positions, size / 2]
    const float *query_norm, *key_norm;  // [size], or null
    float eps, scale;
    long window;  // 0: none
    int half;                            // keys and values are of bfloat16
    void *prefix_keys, *prefix_values;   // [slots, kv_heads, wide, capacity] and [.., capacity, wide]
    void *own_keys, *own_values;         // [places, kv_heads, wide, capacity] and [.., capacity, wide]
} Cache;

typedef struct {
    const void *weight;  // packed
    const float *bias;   // [padded outputs], or null
    const float *scale;    // of a weight in bytes: [panels, groups, TILE], or null
    const int32_t *shift;  // -128 times the sum of a group's bytes, likewise
    long inputs, outputs;
} Linear;

typedef struct {
    Cache cache;
    const float *first_norm, *second_norm;
    float eps;
    Linear qkv, out, gate_up, down;  // gate_up: gate and up panels in turn
} Layer;

typedef struct {
    long layers, hidden, vocabulary;
    const Layer *layer;
    const float *norm;
    float eps;
    Linear head;
    int half;  // products of bfloat16; 0 where weights are in bytes
} Model;

// Rows of this step, with the memory it works in.
typedef struct {
    long n, across;          // across: widest row of scores
    const int64_t *slot, *place, *own_length;
    long *begin, *order;     // rows by slot: begin[s] .. begin[s + 1] of `order`
    float *stream, *wide, *queries, *mixed;
    void *narrow;            // inputs of products, in their type
    uint32_t *bytes;         // those that are rounded to bytes
} Step;

// How many bytes a row of a product's input has, `half` where the weight is not in bytes.
INLINE long row_bytes(const Linear *l, int half) {
    return l->scale ? rounded_row(l->inputs) * 4 : l->inputs * (half ? 2 : 4);
}

// c [rows, TILE], row by row c_row apart = rows `from`.. of x [n, inputs] times panel `panel` of a packed weight, plus its
// bias. Meanwhile the panel `ahead` panels further on is fetched: the first product with a panel waits for memory, those
// with other rows do not, and together they leave time to fetch another one.
static void panel_product(const Linear *l, long panel, long ahead, long n, long from, long rows, const void *x, int half,
                          float *c, long c_row) {
    long bytes = TILE * (l->scale ? quads_of(l->inputs) * 4 : l->inputs * (half ? 2 : 4)), share = bytes / n;
    long scales = panel * groups_of(l->inputs) * TILE;
    const char *weight = (const char *)l->weight + panel * bytes, *later = weight + ahead * bytes + from * share;
    x = (const char *)x + from * row_bytes(l, half);
    if (l->scale)
        product_bytes_ahead(rows, l->inputs, x, (const uint32_t *)weight, l->scale + scales, l->shift + scales, c, c_row, later,
                            share);
#if HALF_PRODUCTS
    else if (half)
        product_half_ahead(rows, l->inputs / 2, x, l->inputs / 2, 1, (const uint32_t *)weight, c, c_row, 0, later, share);
    else
#endif
        product_ahead(rows, TILE, l->inputs, x, l->inputs, 1, weight, TILE, 0, c, c_row, 0, later, share);
    if (l->bias)
        for (long i = 0; i < rows; i++)
            for (long j = 0; j < TILE; j++) c[i * c_row + j] += l->bias[panel * TILE + j];
}

// y [n, padded(outputs)] = x weight' + bias. For the threads of a parallel region.
static void apply(const Linear *l, long n, const void *x, int half, float *y) {
    long panels = padded(l->outputs) / TILE, blocks = (n + ROWS - 1) / ROWS, across = panels * TILE;
#pragma omp for schedule(static)
    for (long task = 0; task < panels * blocks; task++) {
        long panel = task / blocks, from = task % blocks * ROWS;
        panel_product(l, panel, 1, n, from, least(ROWS, n - from), x, half, y + from * across + panel * TILE, across);
    }
}

// to = rows [n, width] of floats as the weight in bytes `l` takes them.
static void apply_rounding(const Linear *l, long n, const float *rows, uint32_t *to) {
#pragma omp for schedule(static)
    for (long i = 0; i < n; i++) round_row(to + i * row_bytes(l, 0) / 4, rows + i * l->inputs, l->inputs);
}

// out [n, width] = silu(x gate') * (x up'), of bfloat16 where `half`.
static void apply_swiglu(const Linear *l, long n, const void *x, int half, long width, void *out) {
    long panels = (width + TILE - 1) / TILE, blocks = (n + ROWS - 1) / ROWS;
#pragma omp for schedule(static)
    for (long task = 0; task < panels * blocks; task++) {
        long panel = task / blocks, from = task % blocks * ROWS, rows = least(ROWS, n - from);
        float gate[ROWS * TILE], up[ROWS * TILE];
        panel_product(l, 2 * panel, 2, n, from, rows, x, half, gate, TILE);
        panel_product(l, 2 * panel + 1, 2, n, from, rows, x, half, up, TILE);
        for (long j = 0; j < rows * TILE; j += LANES) {
            vec g = load(gate + j);
            store(gate + j, g / (1.0f + exp_of(-g)) * load(up + j));
        }
        for (long i = 0; i < rows; i++)
            write_row(slot_of(out, (from + i) * width + panel * TILE, half), gate + i * TILE,
                      least(TILE, width - panel * TILE), half);
    }
}

// stream += change [n, padded(width)] (null: nothing); out = its norm, as the product with `to` takes it.
static void apply_norm(const Linear *to, long n, const float *weight, float eps, float *stream, const float *change, int half,
                       void *out, float *row) {
    long width = to->inputs;
#pragma omp for schedule(static)
    for (long i = 0; i < n; i++) {
        float *x = stream + i * width, total = 0;
        vec squares = {};
        long j = 0;
        if (change)
            for (long k = 0; k < width; k++) x[k] += change[i * padded(width) + k];
        for (; j + LANES <= width; j += LANES) squares += load(x + j) * load(x + j);
        for (; j < width; j++) total += x[j] * x[j];
        float inverse = 1.0f / sqrtf((total + sum_of(squares)) / width + eps);
        for (j = 0; j < width; j++) row[j] = x[j] * inverse * weight[j];
        if (to->scale)
            round_row((uint32_t *)out + i * row_bytes(to, half) / 4, row, width);
        else
            write_row(slot_of(out, i * width, half), row, width, half);
    }
}

// The keys or values of one head in a cache of `capacity` tokens.
INLINE void *head_of(const Cache *t, void *cache, long at, long kv, long wide, long capacity) {
    return slot_of(cache, (at * t->kv_heads + kv) * wide * capacity, t->half);
}

// A product with cached keys or values.
INLINE void cached_product(const Cache *t, long m, long n, long depth, const float *a, long down, const void *b, long b_row,
                           float *c, long c_row, int add) {
    if (t->half)
        product_widened(m, n, depth, a, down, 1, b, b_row, c, c_row, add);
    else
        product(m, n, depth, a, down, 1, b, b_row, c, c_row, add);
}

// Attention of all rows over qkv [n, across]; out [n, heads * size], typed as the products.
static void apply_attention(const Cache *t, const Step *step, const float *qkv, int half, void *out, float *scores) {
    long size = t->size, wide = padded(size), share = t->heads / t->kv_heads, turns = size / 2, n = step->n;
    long row = padded((t->heads + 2 * t->kv_heads) * size), together = most(1, 16 / share), across = step->across;
    float *queries = step->queries, *mixed = scores + together * share * across;  // queries [kv_heads, n, share, wide]
#pragma omp for schedule(static)
    for (long at = 0; at < n; at++) {
        long i = step->order[at], new = step->own_length[i], position = t->prefix_length[step->slot[i]] + new;
        const float *cos = t->cos + position * turns, *sin = t->sin + position * turns, *from = qkv + i * row;
        for (long h = 0; h < t->heads; h++) {
            float *q = queries + ((h / share * n + at) * share + h % share) * wide;
            memcpy(q, from + h * size, size * 4);
            if (t->query_norm) normalise(q, t->query_norm, size, t->eps);
            rotate(q, cos, sin, turns);
            for (long j = 0; j < size; j++) q[j] *= t->scale;
            for (long j = size; j < wide; j++) q[j] = 0;
        }
        for (long kv = 0; kv < t->kv_heads; kv++) {
            void *keys = head_of(t, t->own_keys, step->place[i], kv, wide, t->own_capacity);
            void *values = head_of(t, t->own_values, step->place[i], kv, wide, t->own_capacity);
            float *key = mixed;
            memcpy(key, from + (t->heads + kv) * size, size * 4);
            if (t->key_norm) normalise(key, t->key_norm, size, t->eps);
            rotate(key, cos, sin, turns);
            for (long j = 0; j < size; j++) write_row(slot_of(keys, j * t->own_capacity + new, t->half), key + j, 1, t->half);
            write_row(slot_of(values, new * wide, t->half), from + (t->heads + t->kv_heads + kv) * size, size, t->half);
        }
    }
#pragma omp for schedule(dynamic, 1)
    for (long unit = 0; unit < t->slots * t->kv_heads; unit++) {
        long s = unit / t->kv_heads, kv = unit % t->kv_heads;
        long length = t->prefix_length[s], skip = padded(length);
        const void *keys = head_of(t, t->prefix_keys, s, kv, wide, t->prefix_capacity);
        const void *values = head_of(t, t->prefix_values, s, kv, wide, t->prefix_capacity);
        for (long first = step->begin[s]; first < step->begin[s + 1]; first += together) {
            long rows = least(together, step->begin[s + 1] - first), count = rows * share;
            const float *q = queries + (kv * n + first) * share * wide;
            cached_product(t, count, skip, wide, q, wide, keys, t->prefix_capacity, scores, across, 0);
            for (long r = 0; r < rows; r++) {
                long i = step->order[first + r], seen = step->own_length[i] + 1, columns = padded(seen);
                long from = t->window ? most(0, length + seen - t->window) : 0;
                const void *own = head_of(t, t->own_keys, step->place[i], kv, wide, t->own_capacity);
                cached_product(t, share, columns, wide, q + r * share * wide, wide, own, t->own_capacity,
                               scores + r * share * across + skip, across, 0);
                for (long h = r * share; h < (r + 1) * share; h++) {
                    float *line = scores + h * across;
                    for (long k = 0; k < least(from, length); k++) line[k] = HIDDEN;
                    for (long k = length; k < skip; k++) line[k] = HIDDEN;
                    for (long k = 0; k < from - length; k++) line[skip + k] = HIDDEN;
                    for (long k = seen; k < columns; k++) line[skip + k] = HIDDEN;
                    vec peaks = splat(HIDDEN), sums = {};
                    for (long k = 0; k < skip + columns; k += LANES) peaks = larger(peaks, load(line + k));
                    float peak = largest_of(peaks);
                    for (long k = 0; k < skip + columns; k += LANES) {
                        vec e = exp_of(load(line + k) - peak);
                        store(line + k, e);
                        sums += e;
                    }
                    vec over = splat(1.0f / sum_of(sums));
                    for (long k = 0; k < skip + columns; k += LANES) store(line + k, load(line + k) * over);
                }
            }
            cached_product(t, count, wide, length, scores, across, values, wide, mixed, wide, 0);
            for (long r = 0; r < rows; r++) {
                long i = step->order[first + r];
                const void *own = head_of(t, t->own_values, step->place[i], kv, wide, t->own_capacity);
                cached_product(t, share, wide, step->own_length[i] + 1, scores + r * share * across + skip, across, own, wide,
                               mixed + r * share * wide, wide, 1);
                for (long h = 0; h < share; h++)
                    write_row(slot_of(out, (i * t->heads + kv * share + h) * size, half), mixed + (r * share + h) * wide, size,
                              half);
            }
        }
    }
}

static Step new_step(const Model *m, long n, const int64_t *slot, const int64_t *place, const int64_t *own_length) {
    Step step = {.n = n, .slot = slot, .place = place, .own_length = own_length};
    long queries = 0, widest = m->hidden, slots = m->layer[0].cache.slots;
    for (long l = 0; l < m->layers; l++) {
        const Layer *layer = m->layer + l;
        queries = most(queries, n * layer->cache.heads * padded(layer->cache.size));
        widest = most(widest, most(layer->qkv.outputs, most(layer->out.inputs, layer->down.inputs)));
    }
    for (long i = 0; i < n; i++) {
        long prefix = m->layer[0].cache.prefix_length[slot[i]];
        step.across = most(step.across, padded(prefix) + padded(own_length[i] + 1));
    }
    step.begin = calloc(slots + 2, sizeof *step.begin);
    step.order = malloc(n * sizeof *step.order);
    if (!step.begin || !step.order) abort();
    for (long i = 0; i < n; i++) step.begin[slot[i] + 2]++;  // a counting sort
    for (long s = 2; s < slots + 2; s++) step.begin[s] += step.begin[s - 1];
    for (long i = 0; i < n; i++) step.order[step.begin[slot[i] + 1]++] = i;
    step.queries = scratch(queries);
    step.wide = scratch(n * padded(widest));
    step.narrow = scratch(2 * n * padded(widest));
    step.bytes = (uint32_t *)scratch(n * rounded_row(padded(widest)));
    return step;
}

// decode_step for some of the rows.
static void decode_rows(const Model *m, long n, float *x, const int64_t *slot, const int64_t *place, const int64_t *own_length,
                        float *logits) {
    Step step = new_step(m, n, slot, place, own_length);
    int half = m->half;
    const Cache *widest = &m->layer[0].cache;
    long share = widest->heads / widest->kv_heads, lines = most(1, 16 / share) * share;
    long row = lines * (step.across + padded(widest->size)) + m->hidden;
    void *one = step.narrow, *two = slot_of(step.narrow, n * padded(m->layer[0].down.inputs), half);
#pragma omp parallel
    {
        float *mine = scratch(row), *norm = mine + row - m->hidden;
        const float *change = NULL;
        for (long l = 0; l < m->layers; l++) {
            const Layer *layer = m->layer + l;
            int rounds = layer->out.scale != NULL;
            const void *input = rounds ? step.bytes : two;
            apply_norm(&layer->qkv, n, layer->first_norm, layer->eps, x, change, half, one, norm);
            apply(&layer->qkv, n, one, half, step.wide);
            apply_attention(&layer->cache, &step, step.wide, half, two, mine);
            if (rounds) apply_rounding(&layer->out, n, two, step.bytes);
            apply(&layer->out, n, input, half, step.wide);
            apply_norm(&layer->gate_up, n, layer->second_norm, layer->eps, x, step.wide, half, one, norm);
            apply_swiglu(&layer->gate_up, n, one, half, layer->down.inputs, two);
            if (rounds) apply_rounding(&layer->down, n, two, step.bytes);
            apply(&layer->down, n, input, half, step.wide);
            change = step.wide;
        }
        apply_norm(&m->head, n, m->norm, m->eps, x, change, 0, one, norm);
        apply(&m->head, n, one, 0, logits);
        free(mine);
    }
    free(step.begin);
    free(step.order);
    free(step.queries);
    free(step.wide);
    free(step.narrow);
    free(step.bytes);
}

// Whether threads go apart: 0 never, 1 always, -1 as is quicker now. No number depends on it.
static long apart = -1;
void decode_apart(long how) { apart = how; }

// x [n, hidden]: the embedded tokens, overwritten. logits [n, padded(vocabulary)].
//
// Threads share every product, and wait for each other some seven times a layer. Where something else runs on a core, all
// of them wait for the one that was put aside; then it is quicker that each goes through the model with rows of its own, at
// the price of reading the weights as often as there are threads. Which one is, is seen by the time that both take.
void decode_step(const Model *m, long n, float *x, const int64_t *slot, const int64_t *place, const int64_t *own_length,
                 float *logits) {
    static double seconds[2];  // of a row, together and apart: means that forget
    static long steps;
    long threads = omp_get_max_threads(), can = threads > 1 && threads <= FEW && n >= ALONE * threads;
    long try = ++steps % 32 < 2, usual = seconds[1] > 0 && seconds[1] < seconds[0];
    long alone = can && (apart < 0 ? usual ^ try : apart), rows = (n + threads - 1) / threads;
    double began = omp_get_wtime();
    if (alone) {
#pragma omp parallel for schedule(static, 1)
        for (long from = 0; from < n; from += rows)
            decode_rows(m, least(rows, n - from), x + from * m->hidden, slot + from, place + from, own_length + from,
                        logits + from * padded(m->vocabulary));
    } else  // outside of any parallel region, be it one of a single thread: within one, every token would start new threads
        decode_rows(m, n, x, slot, place, own_length, logits);
    double took = (omp_get_wtime() - began) / n;
    if (can) seconds[alone] = seconds[alone] > 0 ? 0.8 * seconds[alone] + 0.2 * took : took;
}

// Weight [outputs, inputs], rows `inputs` apart, into panels; panel i goes to place first + i * step of `packed`. Bytes,
// with a scale for each group of inputs, where there is room for scales.
void pack(long outputs, long inputs, const float *weight, int half, long first, long step, void *packed, float *scale,
          int32_t *shift) {
    long panels = padded(outputs) / TILE;
#pragma omp parallel for schedule(static)
    for (long panel = 0; panel < panels; panel++) {
        const float *from = weight + panel * TILE * inputs;
        long columns = least(TILE, outputs - panel * TILE), at = (first + panel * step) * TILE, place = at * inputs;
        if (scale) {
            int8_t *to = (int8_t *)packed + at * quads_of(inputs) * 4;
            for (long j = 0; j < columns; j++)
                for (long g = 0; g < groups_of(inputs); g++) {
                    const float *w = from + j * inputs;
                    long until = least(inputs, (g + 1) * GROUP), of = at * groups_of(inputs) + g * TILE + j;
                    float peak = largest_in(w + g * GROUP, until - g * GROUP), over = peak > 0 ? 127.0f / peak : 0;
                    int32_t sum = 0;
                    for (long k = g * GROUP; k < until; k++)
                        sum += to[(k / 4 * TILE + j) * 4 + k % 4] = (int8_t)rintf(w[k] * over);
                    scale[of] = peak / 127.0f;
                    shift[of] = -128 * sum;
                }
        } else if (half) {
            bf16 *to = (bf16 *)packed + place;
            for (long k = 0; k < inputs; k++)
                for (long j = 0; j < TILE; j++)
                    to[(k / 2 * TILE + j) * 2 + k % 2] = j < columns ? narrow(from[j * inputs + k]) : 0;
        } else {
            float *to = (float *)packed + place;
            for (long k = 0; k < inputs; k++)
                for (long j = 0; j < TILE; j++) to[k * TILE + j] = j < columns ? from[j * inputs + k] : 0;
        }
    }
}
