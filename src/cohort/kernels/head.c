// Between logits and tokens: log-probs of given tokens with their gradient, and the choice of new ones.

#include "vector.h"

// Row i of `logits` [n, vocabulary], divided by the temperature, gives token targets[i]'s log-prob, the entropy, and the
// logarithm of the softmax's sum.
void logprob_forward(long n, long vocabulary, const float *logits, const int64_t *targets, float over_temperature,
                     float *logprob, float *entropy, float *logsumexp) {
#pragma omp parallel for schedule(static)
    for (long i = 0; i < n; i++) {
        const float *x = logits + i * vocabulary;
        long whole = vocabulary / LANES * LANES;
        vec peaks = splat(-INFINITY), sums = {}, weighted = {};
        long j = 0;
        for (; j < whole; j += LANES) peaks = larger(peaks, load(x + j));
        float peak = largest_of(peaks);
        for (; j < vocabulary; j++) peak = x[j] > peak ? x[j] : peak;
        for (j = 0; j < whole; j += LANES) {
            vec d = (load(x + j) - peak) * over_temperature, e = exp_of(d);
            sums += e;
            weighted += pick(e > 0, e * d, (vec){});
        }
        float sum = sum_of(sums), mean = sum_of(weighted);
        for (; j < vocabulary; j++) {
            float d = (x[j] - peak) * over_temperature, e = expf(d);
            sum += e;
            mean += e > 0 ? e * d : 0;
        }
        float logsum = logf(sum);
        logsumexp[i] = logsum + peak * over_temperature;
        logprob[i] = (x[targets[i]] - peak) * over_temperature - logsum;
        entropy[i] = logsum - mean / sum;
    }
}

// The gradient of `logits`, in their place, from that of the log-probs.
void logprob_backward(long n, long vocabulary, float *logits, const int64_t *targets, float over_temperature,
                      const float *logsumexp, const float *from) {
#pragma omp parallel for schedule(static)
    for (long i = 0; i < n; i++) {
        float *x = logits + i * vocabulary, slope = from[i] * over_temperature, normaliser = logsumexp[i];
        long j = 0;
        for (; j + LANES <= vocabulary; j += LANES)
            store(x + j, exp_of(load(x + j) * over_temperature - normaliser) * -slope);
        for (; j < vocabulary; j++) x[j] = expf(x[j] * over_temperature - normaliser) * -slope;
        x[targets[i]] += slope;
    }
}

#define RUN 64  // probabilities summed in float32 before they enter the float64 sum

// One token for each of n rows, by inverting the cumulative distribution at its uniform; temperature 0 takes the largest
// logit and reports its log-prob at temperature 1. A row whose logits are not finite reports NaN.
//
// Rows of `logits` are `stride` apart. Row i has length[i] tokens, in rows of `capacity`: its token, log-prob and uniform
// stand at that column, and its length grows by one. ended[i]: it is at its limit, or the token ends a completion.
void append_tokens(long n, long vocabulary, long stride, const float *logits, const float *temperature, long capacity,
                   int64_t *tokens, float *logprobs, const double *uniforms, int64_t *length, const int64_t *limit,
                   const int64_t *ends, long end_count, uint8_t *ended) {
    long runs = (vocabulary + RUN - 1) / RUN;
#pragma omp parallel
    {
        float *p = scratch(runs * RUN + LANES);
        double *sums = malloc(runs * sizeof *sums);
        if (!sums) abort();
#pragma omp for schedule(static)
        for (long i = 0; i < n; i++) {
            const float *x = logits + i * stride;
            long at = i * capacity + length[i], best = 0;
            float scale = temperature[i] > 0 ? 1.0f / temperature[i] : 1.0f, peak = -INFINITY;
            for (long j = 0; j < vocabulary; j++) peak = x[j] > peak ? x[j] : peak;
            while (best < vocabulary - 1 && !(x[best] == peak)) best++;
            for (long j = 0; j < vocabulary; j++) p[j] = (x[j] - peak) * scale;
            for (long j = vocabulary; j < runs * RUN; j++) p[j] = -INFINITY;
            double total = 0;
            long final = 0;  // the last run with any probability: u * total may round up to total
            for (long run = 0; run < runs; run++) {
                vec sum = {};
                for (long j = run * RUN; j < (run + 1) * RUN; j += LANES) {
                    vec e = exp_of(load(p + j));
                    store(p + j, e);
                    sum += e;
                }
                total += sums[run] = sum_of(sum);
                if (sums[run] > 0) final = run;
            }
            long chosen = best;
            if (temperature[i] > 0) {
                double target = uniforms[at] * total, before = 0;
                long run = 0;
                while (run < final && before + sums[run] <= target) before += sums[run++];
                chosen = run * RUN;
                long last = chosen;  // likewise within the run
                for (long j = run * RUN; j < least(vocabulary, (run + 1) * RUN); j++) {
                    if (p[j] > 0) last = j;
                    before += p[j];
                    chosen = last;
                    if (before > target) break;
                }
            }
            tokens[at] = chosen;
            logprobs[at] = (x[chosen] - peak) * scale - (float)log(total);
            ended[i] = ++length[i] >= limit[i];
            for (long k = 0; k < end_count; k++) ended[i] |= chosen == ends[k];
        }
        free(p);
        free(sums);
    }
}
