/* Sampling from an autoregressive network, each of whose numbers is computed once (tinygen.h has the contract). A
 * block computes one image from its first value to its last, so only the block's threads wait for each other. The
 * image's state and the weights stay in the caches; neighboring threads read neighboring weights. A value that can't
 * be drawn isn't reported. Models draw on the CPU until a GPU has shown from how many images on this is faster. */
#include "runtime/cuda.cuh"

namespace {

enum { SAMPLE_THREADS = 128, MOST_LEVELS = 256, NARROW = 16 };

template <class real>
struct network {
    tg_sampler s;
    const tg_layer *layers;
    const int64_t *runs, *starts;
    const tg_step *steps;
    const int32_t *places, *results;
    const real *weights, *scaled;
    const double *uniform;
    real *state;
    uint8_t *x;
    int64_t drawn_from;                                 /* results of a value */
};

/* The part of W v, for one number, that falls to a group of threads: every `groups`-th row. */
template <class real>
__device__ __forceinline__ real share(const network<real> &e, const tg_layer &layer, const real *x, int64_t column,
                                      int group, int groups)
{
    const real *w = e.weights + layer.weights + layer.ld + column;
    real sum = 0;
    int64_t row = 0;                                    /* of the run's first number */
    for (int64_t r = layer.run; r < layer.run + layer.runs; r++) {
        int64_t from = e.runs[2 * r], length = e.runs[2 * r + 1];
        for (int64_t i = (group + groups - row % groups) % groups; i < length; i += groups)
            sum += x[from + i] * w[(row + i) * layer.ld];
        row += length;
    }
    return sum;
}

/* out = b + W v, or y + W v; threads that have no number of their own take rows of W from those that have. */
template <class real>
__device__ __forceinline__ void linear(const network<real> &e, const tg_layer &layer, const tg_step &step, real *state)
{
    SHARED(real, shares, [SAMPLE_THREADS]);
    int columns = SAMPLE_THREADS, self = (int)threadIdx.x;
    while (columns > NARROW && layer.n <= columns / 2)
        columns /= 2;
    int column = self % columns, group = self / columns, groups = SAMPLE_THREADS / columns;
    for (int64_t first = 0; first < layer.n; first += columns) {
        int64_t j = first + column;
        shares[self] = j < layer.n ? share(e, layer, state + step.x, j, group, groups) : 0;
        __syncthreads();
        if (group == 0 && j < layer.n) {
            real sum = layer.kind == TG_LINEAR ? e.weights[layer.weights + j] : state[step.y + j];
            for (int g = 0; g < groups; g++)
                sum += shares[g * columns + column];
            state[step.out + j] = sum;
        }
        __syncthreads();
    }
}

template <class real>
__device__ __forceinline__ real apply(int64_t kind, real x, real y)
{
    switch (kind) {
    case TG_RELU: return larger(x, real(0));
    case TG_ELU: return x > 0 || x != x ? x : expm1(x);
    case TG_TANH: return tanh(x);
    case TG_SIGMOID: return sigmoid(x);
    case TG_ADD: return x + y;
    case TG_SUB: return x - y;
    case TG_MUL: return x * y;
    case TG_GATED: return tanh(x) * sigmoid(y);
    default: return x;
    }
}

__device__ __forceinline__ double log_sigmoid(double x) { return (x < 0 ? x : 0) - log1p(exp(-fabs(x))); }

/* log of the probability of a level's interval: sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)) */
__device__ __forceinline__ double log_probability(double mean, double inverse, int level, int last)
{
    const double half = 1. / last, distance = 2 * half * level - 1 - mean;
    double sum = level < last ? log_sigmoid((distance + half) * inverse) : 0;
    sum += level > 0 ? log_sigmoid((half - distance) * inverse) : 0;
    return level > 0 && level < last ? sum + log(-expm1(-2 * half * inverse)) : sum;
}

/* log of a level's share in component k of a value's mixture, and of the pixel's colors `before` it. */
template <class real>
__device__ double log_share(const network<real> &e, const real *state, int64_t value, int64_t k, const uint8_t *before,
                            int level)
{
    const int64_t colors = e.s.colors, here = value % colors;
    const int last = (int)e.s.levels - 1;
    const int32_t *at = e.results + value * e.drawn_from + k * (e.drawn_from / e.s.mixtures);
    const int32_t *moves = at + 1 + 2 * colors;
    double sum = (double)state[at[0]];
    for (int64_t i = 0; i <= here; i++) {
        double mean = (double)state[at[1 + i]], log_scale = (double)state[at[1 + colors + i]];
        for (int64_t j = 0; j < i; j++)
            mean += tanh((double)state[*moves++]) * (2. / last * before[j] - 1);
        double inverse = exp(-(log_scale < -7 ? -7 : log_scale > 7 ? 7 : log_scale));
        sum += log_probability(mean, inverse, i < here ? before[i] : level, last);
    }
    return sum;
}

template <class real>
__device__ double logit(const network<real> &e, const real *state, int64_t value, const uint8_t *before, int level)
{
    if (!e.s.mixtures)
        return (double)state[e.results[value * e.drawn_from + level]];
    double top = -INFINITY, sum = 0;
    for (int64_t k = 0; k < e.s.mixtures; k++)
        top = fmax(top, log_share(e, state, value, k, before, level));
    for (int64_t k = 0; k < e.s.mixtures; k++)
        sum += exp(log_share(e, state, value, k, before, level) - top);
    return top + log(sum);
}

/* The level at which the cumulative probability passes u; in float64 whatever the network's type, and added up by
 * one thread, in order, as the C kernel does. */
template <class real>
__device__ __forceinline__ void draw(const network<real> &e, const real *state, int64_t value, double u, uint8_t *to)
{
    SHARED(double, x, [MOST_LEVELS]);
    SHARED(int, likeliest, [1]);
    const int levels = (int)e.s.levels, self = (int)threadIdx.x;
    const uint8_t *before = to - (e.s.mixtures ? value % e.s.colors : 0);
    for (int i = self; i < levels; i += SAMPLE_THREADS)
        x[i] = logit(e, state, value, before, i);
    __syncthreads();
    if (self == 0) {
        likeliest[0] = 0;
        for (int i = 1; i < levels; i++)
            if (x[i] > x[likeliest[0]])
                likeliest[0] = i;
    }
    __syncthreads();
    double top = x[likeliest[0]];
    __syncthreads();
    for (int i = self; i < levels; i += SAMPLE_THREADS)
        x[i] = exp((x[i] - top) / e.s.temperature);
    __syncthreads();
    if (self == 0) {
        int level = 0;
        for (int i = 1; i < levels; i++)
            x[i] += x[i - 1];
        for (int i = 0; i < levels - 1; i++)
            level += x[i] <= u * x[levels - 1];
        *to = (uint8_t)(e.s.temperature == 0 ? likeliest[0] : level);
    }
}

template <class real>
__global__ void __launch_bounds__(SAMPLE_THREADS, 4) sample_images(network<real> e)
{
    const int64_t image = blockIdx.x;
    real *state = e.state + image * e.s.size;
    uint8_t *x = e.x + image * e.s.values;
    for (int64_t value = e.s.first; value < e.s.last; value++) {
        if (value && threadIdx.x == 0)
            state[e.places[value - 1]] = e.scaled[x[value - 1]];
        __syncthreads();
        for (int64_t i = e.starts[value]; i < e.starts[value + 1]; i++) {
            const tg_step step = e.steps[i];
            const tg_layer layer = e.layers[step.layer];
            if (layer.kind <= TG_LINEAR_FROM) {
                linear(e, layer, step, state);
                continue;
            }
            for (int64_t j = threadIdx.x; j < layer.n; j += SAMPLE_THREADS)
                state[step.out + j] = apply(layer.kind, state[step.x + j], state[step.y + j]);
            __syncthreads();
        }
        if (value >= e.s.known)
            draw(e, state, value, e.uniform[value * e.s.n + image], x + value);
    }
}

}

int tg_sample(int dtype, const tg_sampler *s, const tg_layer *layers, const int64_t *runs, const void *weights,
              const tg_step *steps, const int64_t *starts, const int32_t *places, const void *scaled,
              const int32_t *results, const double *uniform, void *state, uint8_t *x, int)
{
    if (s->n < 0 || s->n > MOST || sampler_results(s) < 1 || s->levels > MOST_LEVELS || s->first < 0
        || s->last > s->values)
        return TG_BAD_ARGUMENT;
    return typed(dtype, [&](auto zero) {
        typedef decltype(zero) real;
        network<real> e = {*s, layers, runs, starts, steps, places, results, (const real *)weights,
                           (const real *)scaled, uniform, (real *)state, x, sampler_results(s)};
        if (s->n)
            LAUNCH(sample_images<real>, (unsigned)s->n, SAMPLE_THREADS, e);
        return launched();
    });
}
