// Attention over groups that share a prompt, with the query and key norms and the rotary embedding inside.
//
// A group is a prompt and the rollouts that continue it, all in one flat row of tokens. A unit of work is one key head of
// one group: the prompt's keys and values are prepared once for all its rollouts, and their gradients are summed in one
// place, in a fixed order. Scores exist for BLOCK queries at a time.

#include "heads.h"

#define BLOCK 16

typedef struct {
    long heads, kv_heads, size;   // size: of a head
    long groups;
    const int64_t *first;         // [groups + 1] where a group's sequences begin in `start`; its prompt is the first
    const int64_t *start, *length;  // [sequences] in the flat row
    const float *cos, *sin;       // [tokens, size / 2]
    const float *query_norm, *key_norm;  // [size], or null
    float eps, scale;
    long window;                  // 0: none
    const void *query, *key, *value;  // token i's heads begin at element i * row
    long query_row, key_row, value_row;
    int half;                     // bfloat16
} Attention;

// A head of one token as attention sees it: normalised, rotated, padded with zeros to `wide`.
INLINE void prepare(float *to, const void *from, const Attention *t, const float *weight, long token, long wide) {
    read_row(to, from, t->size, t->half);
    if (weight) normalise(to, weight, t->size, t->eps);
    rotate(to, t->cos + token * (t->size / 2), t->sin + token * (t->size / 2), t->size / 2);
    for (long j = t->size; j < wide; j++) to[j] = 0;
}

// A key, rounded where activations are bfloat16, because that is how a cache keeps it.
INLINE void prepare_key(float *to, const Attention *t, long kv, long token, long wide) {
    prepare(to, element(t->key, token * t->key_row + kv * t->size, t->half), t, t->key_norm, token, wide);
    if (t->half)
        for (long j = 0; j < wide; j++) to[j] = widen(narrow(to[j]));
}

// The way back through `prepare`: gradient `g` [size] of the prepared head -> of the raw one, in place; the weight's is added.
INLINE void prepare_back(float *g, float *raw, const void *from, const Attention *t, const float *weight, float *to_weight,
                         long token) {
    long size = t->size;
    rotate_back(g, t->cos + token * (size / 2), t->sin + token * (size / 2), size / 2);
    if (!weight) return;
    read_row(raw, from, size, t->half);
    float total = 0, dot = 0;
    for (long j = 0; j < size; j++) total += raw[j] * raw[j];
    float inverse = 1.0f / sqrtf(total / size + t->eps);
    for (long j = 0; j < size; j++) {
        raw[j] *= inverse;
        to_weight[j] += g[j] * raw[j];
        g[j] *= weight[j];
        dot += g[j] * raw[j];
    }
    for (long j = 0; j < size; j++) g[j] = inverse * (g[j] - raw[j] * dot / size);
}

// Keys and values of one sequence for one key head.
typedef struct {
    long length, across;             // across = padded(length)
    float *keys, *values;            // [length, wide]
    float *key_columns, *value_columns;  // [wide, across], zero beyond `length`
} Context;

static void turn(float *to, const float *from, long length, long wide, long across) {
    for (long j = 0; j < wide; j++) {
        for (long i = 0; i < length; i++) to[j * across + i] = from[i * wide + j];
        for (long i = length; i < across; i++) to[j * across + i] = 0;
    }
}

static void read_context(Context *c, const Attention *t, long kv, long sequence, long wide, int backward) {
    long size = t->size, start = t->start[sequence];
    c->length = t->length[sequence];
    c->across = padded(c->length);
    for (long i = 0; i < c->length; i++) {
        long token = start + i;
        prepare_key(c->keys + i * wide, t, kv, token, wide);
        read_row(c->values + i * wide, element(t->value, token * t->value_row + kv * size, t->half), size, t->half);
        for (long j = size; j < wide; j++) c->values[i * wide + j] = 0;
    }
    turn(c->key_columns, c->keys, c->length, wide, c->across);
    if (backward) turn(c->value_columns, c->values, c->length, wide, c->across);
}

static Context new_context(long longest, long wide) {
    long one = (longest + TILE) * wide;
    Context c = {0, 0, scratch(one), scratch(one), scratch(one), scratch(one)};
    return c;
}

static void free_context(Context *c) {
    free(c->keys);
    free(c->values);
    free(c->key_columns);
    free(c->value_columns);
}

static long longest_of(const Attention *t) {
    long longest = 0;
    for (long s = t->first[0]; s < t->first[t->groups]; s++) longest = most(longest, t->length[s]);
    return longest;
}

// Scores of `count` queries, the first at place `at` of its own sequence, over the prefix [count, prefix.across] and, right
// of it, over its own tokens up to the last query. Returns how many own columns there are.
static long scores_of(float *scores, long row, const float *queries, long count, long at, const Context *prefix,
                      const Context *own, const Attention *t, long wide) {
    long before = prefix->length, skip = prefix->across, seen = at + count, columns = padded(seen);
    if (before) product(count, skip, wide, queries, wide, 1, prefix->key_columns, skip, scores, row, 0);
    product(count, columns, wide, queries, wide, 1, own->key_columns, own->across, scores + skip, row, 0);
    for (long i = 0; i < count; i++) {
        float *line = scores + i * row;
        long place = before + at + i, from = t->window ? most(0, place - t->window + 1) : 0;
        for (long k = 0; k < least(from, before); k++) line[k] = HIDDEN;
        for (long k = before; k < skip; k++) line[k] = HIDDEN;
        for (long k = 0; k < from - before; k++) line[skip + k] = HIDDEN;
        for (long k = at + i + 1; k < columns; k++) line[skip + k] = HIDDEN;
    }
    return columns;
}

// out [tokens, heads * size], in the type of the query; logsumexp [heads, tokens].
void attention_forward(const Attention *t, long tokens, void *out, float *logsumexp) {
    long size = t->size, wide = padded(size), share = t->heads / t->kv_heads, longest = longest_of(t);
    long row = 2 * (longest + TILE);
#pragma omp parallel
    {
        Context prompt = new_context(longest, wide), rollout = new_context(longest, wide), none = {0};
        float *queries = scratch(BLOCK * wide), *mixed = scratch(BLOCK * wide), *scores = scratch(BLOCK * row);
#pragma omp for schedule(dynamic, 1)
        for (long unit = 0; unit < t->groups * t->kv_heads; unit++) {
            long group = unit / t->kv_heads, kv = unit % t->kv_heads;
            for (long s = t->first[group]; s < t->first[group + 1]; s++) {
                Context *own = s == t->first[group] ? &prompt : &rollout;
                const Context *prefix = own == &prompt ? &none : &prompt;
                read_context(own, t, kv, s, wide, 0);
                for (long at = 0; at < own->length; at += BLOCK) {
                    long count = least(BLOCK, own->length - at), token = t->start[s] + at;
                    for (long head = kv * share; head < (kv + 1) * share; head++) {
                        for (long i = 0; i < count; i++) {
                            float *q = queries + i * wide;
                            prepare(q, element(t->query, (token + i) * t->query_row + head * size, t->half), t,
                                    t->query_norm, token + i, wide);
                            for (long j = 0; j < size; j++) q[j] *= t->scale;
                        }
                        long columns = scores_of(scores, row, queries, count, at, prefix, own, t, wide);
                        long whole = prefix->across + columns;
                        float totals[BLOCK];
                        for (long i = 0; i < count; i++) {
                            float *line = scores + i * row;
                            vec peaks = splat(HIDDEN), sums = {};
                            for (long k = 0; k < whole; k += LANES) peaks = larger(peaks, load(line + k));
                            float peak = largest_of(peaks);
                            for (long k = 0; k < whole; k += LANES) {
                                vec e = exp_of(load(line + k) - peak);
                                store(line + k, e);
                                sums += e;
                            }
                            totals[i] = sum_of(sums);
                            logsumexp[head * tokens + token + i] = peak + logf(totals[i]);
                        }
                        long seen = least(columns, own->length);
                        product(count, wide, seen, scores + prefix->across, row, 1, own->values, wide, mixed, wide, 0);
                        if (prefix->length)
                            product(count, wide, prefix->length, scores, row, 1, prefix->values, wide, mixed, wide, 1);
                        for (long i = 0; i < count; i++) {
                            for (long j = 0; j < size; j++) mixed[i * wide + j] /= totals[i];
                            write_row(slot_of(out, ((token + i) * t->heads + head) * size, t->half), mixed + i * wide,
                                      size, t->half);
                        }
                    }
                }
            }
        }
        free_context(&prompt);
        free_context(&rollout);
        free(queries);
        free(mixed);
        free(scores);
    }
}

typedef struct {
    float *keys, *values;  // [length, wide] gradients of prepared keys, and of values
} Flow;

// Gradients of the raw query, key and value (laid out and typed as those) from that of `out`. The norms' are given
// per unit, [groups * kv_heads, size], to be added up.
void attention_backward(const Attention *t, long tokens, const void *out, const float *logsumexp, const void *from,
                        void *to_query, void *to_key, void *to_value, float *to_query_norm, float *to_key_norm) {
    long size = t->size, wide = padded(size), share = t->heads / t->kv_heads, longest = longest_of(t);
    long row = 2 * (longest + TILE), one = (longest + TILE) * wide;
#pragma omp parallel
    {
        Context prompt = new_context(longest, wide), rollout = new_context(longest, wide), none = {0};
        Flow to_prompt = {scratch(one), scratch(one)}, to_rollout = {scratch(one), scratch(one)};
        float *queries = scratch(BLOCK * wide), *flows = scratch(BLOCK * wide), *moved = scratch(BLOCK * wide);
        float *scores = scratch(BLOCK * row), *slopes = scratch(BLOCK * row), *line_out = scratch(2 * wide), *raw = line_out + wide;
#pragma omp for schedule(dynamic, 1)
        for (long unit = 0; unit < t->groups * t->kv_heads; unit++) {
            long group = unit / t->kv_heads, kv = unit % t->kv_heads, head_of = t->first[group];
            float *query_weight = to_query_norm + unit * size, *key_weight = to_key_norm + unit * size;
            memset(query_weight, 0, size * 4);
            memset(key_weight, 0, size * 4);
            read_context(&prompt, t, kv, head_of, wide, 1);
            memset(to_prompt.keys, 0, prompt.length * wide * 4);
            memset(to_prompt.values, 0, prompt.length * wide * 4);
            // Rollouts first: the prompt's keys and values gather what flows from all of them, then from itself.
            for (long s = t->first[group + 1] - 1; s >= head_of; s--) {
                Context *own = s == head_of ? &prompt : &rollout;
                const Context *prefix = s == head_of ? &none : &prompt;
                Flow to_own = s == head_of ? to_prompt : to_rollout;
                if (own == &rollout) {
                    read_context(own, t, kv, s, wide, 1);
                    memset(to_own.keys, 0, own->length * wide * 4);
                    memset(to_own.values, 0, own->length * wide * 4);
                }
                for (long at = 0; at < own->length; at += BLOCK) {
                    long count = least(BLOCK, own->length - at), token = t->start[s] + at;
                    for (long head = kv * share; head < (kv + 1) * share; head++) {
                        float deltas[BLOCK];
                        for (long i = 0; i < count; i++) {
                            float *q = queries + i * wide, *g = flows + i * wide;
                            prepare(q, element(t->query, (token + i) * t->query_row + head * size, t->half), t,
                                    t->query_norm, token + i, wide);
                            for (long j = 0; j < size; j++) q[j] *= t->scale;
                            long place = ((token + i) * t->heads + head) * size;
                            read_row(g, element(from, place, t->half), size, t->half);
                            read_row(line_out, element(out, place, t->half), size, t->half);
                            for (long j = size; j < wide; j++) g[j] = 0;
                            deltas[i] = 0;
                            for (long j = 0; j < size; j++) deltas[i] += g[j] * line_out[j];
                        }
                        long columns = scores_of(scores, row, queries, count, at, prefix, own, t, wide);
                        long skip = prefix->across, whole = skip + columns, seen = least(columns, own->length);
                        if (prefix->length)
                            product(count, skip, wide, flows, wide, 1, prefix->value_columns, skip, slopes, row, 0);
                        product(count, columns, wide, flows, wide, 1, own->value_columns, own->across, slopes + skip, row, 0);
                        for (long i = 0; i < count; i++) {
                            float *p = scores + i * row, *d = slopes + i * row;
                            float normaliser = logsumexp[head * tokens + token + i], delta = deltas[i];
                            for (long k = 0; k < whole; k += LANES) {
                                vec weight = exp_of(load(p + k) - normaliser);
                                store(p + k, weight);
                                store(d + k, weight * (load(d + k) - delta));
                            }
                        }
                        // The queries hold the scale already; their own gradient still lacks it.
                        product(seen, wide, count, scores + skip, 1, row, flows, wide, to_own.values, wide, 1);
                        product(seen, wide, count, slopes + skip, 1, row, queries, wide, to_own.keys, wide, 1);
                        product(count, wide, seen, slopes + skip, row, 1, own->keys, wide, moved, wide, 0);
                        if (prefix->length) {
                            long n = prefix->length;
                            product(n, wide, count, scores, 1, row, flows, wide, to_prompt.values, wide, 1);
                            product(n, wide, count, slopes, 1, row, queries, wide, to_prompt.keys, wide, 1);
                            product(count, wide, n, slopes, row, 1, prefix->keys, wide, moved, wide, 1);
                        }
                        for (long i = 0; i < count; i++) {
                            float *g = moved + i * wide;
                            for (long j = 0; j < size; j++) g[j] *= t->scale;
                            long place = (token + i) * t->query_row + head * size;
                            prepare_back(g, raw, element(t->query, place, t->half), t, t->query_norm, query_weight, token + i);
                            write_row(slot_of(to_query, place, t->half), g, size, t->half);
                        }
                    }
                }
                for (long i = 0; i < own->length; i++) {
                    long token = t->start[s] + i, place = token * t->key_row + kv * size;
                    float *g = to_own.keys + i * wide;
                    prepare_back(g, raw, element(t->key, place, t->half), t, t->key_norm, key_weight, token);
                    write_row(slot_of(to_key, place, t->half), g, size, t->half);
                    write_row(slot_of(to_value, token * t->value_row + kv * size, t->half), to_own.values + i * wide, size,
                              t->half);
                }
            }
        }
        free_context(&prompt);
        free_context(&rollout);
        free(to_prompt.keys);
        free(to_prompt.values);
        free(to_rollout.keys);
        free(to_rollout.values);
        free(queries);
        free(flows);
        free(moved);
        free(scores);
        free(slopes);
        free(line_out);
    }
}

// The prompts' keys and values, prepared, into a decode cache of the activations' type: keys [slots, kv_heads, wide,
// capacity], values [slots, kv_heads, capacity, wide]. Prompt g goes to slot slots[g].
void attention_store(const Attention *t, const int64_t *slots, long capacity, void *keys, void *values) {
    long wide = padded(t->size), longest = longest_of(t);
#pragma omp parallel
    {
        Context prompt = new_context(longest, wide);
#pragma omp for schedule(dynamic, 1)
        for (long unit = 0; unit < t->groups * t->kv_heads; unit++) {
            long group = unit / t->kv_heads, kv = unit % t->kv_heads;
            read_context(&prompt, t, kv, t->first[group], wide, 0);
            long to = (slots[group] * t->kv_heads + kv) * wide * capacity;
            for (long j = 0; j < wide; j++)
                write_row(slot_of(keys, to + j * capacity, t->half), prompt.key_columns + j * prompt.across, prompt.length,
                          t->half);
            write_row(slot_of(values, to, t->half), prompt.values, prompt.length * wide, t->half);
        }
        free_context(&prompt);
    }
}
