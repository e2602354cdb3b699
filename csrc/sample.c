/* Sampling from an autoregressive network, each of whose numbers is computed once (tinygen.h has the contract).
 *
 * A thread computes a group of images through all values, so no thread waits for another. Within a group a step is
 * done for one image after the other, but a product for as many images at once as a register tile has rows: so a
 * batch costs little more than one image. An image's result never depends on its group. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>
#include "tile.h"

enum { GROUP = 32, WIDE = 16, MOST_LEVELS = 256, LIMIT = 1 << 30 };

typedef void (*apply_kernel)(int64_t kind, const void *x, const void *y, void *out, int64_t n);
typedef void (*shares_kernel)(void *x, double temperature, int64_t n);
typedef void (*add_intervals_kernel)(void *x, double weight, double first, double step, int64_t n);

#define FAMILY "sample.inc"
#include "runtime/variants.h"

static const apply_kernel applies[][2] = TABLE(apply);
static const shares_kernel all_shares[][2] = TABLE(shares);
static const add_intervals_kernel all_add_intervals[][2] = TABLE(add_intervals);

typedef struct {
    const tg_sampler *s;
    const tile_kernels *k;
    apply_kernel apply;
    shares_kernel shares;
    add_intervals_kernel add_intervals;
    const tg_layer *layers;
    const tg_step *steps;
    const int64_t *runs, *starts;
    const int32_t *places, *results;
    const char *weights, *scaled;
    const double *uniform;
    char *state;
    uint8_t *x;
    int dtype;
    int64_t size, group, drawn_from;            /* bytes of a number; images in a group; results of a value */
    atomic_llong failed;                        /* the first value that can't be drawn */
} sampler;

typedef struct { int64_t first, count; char *state[GROUP]; } images;

/* --- steps ---------------------------------------------------------------------------------------------- */

static void linear(const sampler *e, const tg_layer *layer, const tg_step *step, const images *g)
{
    const tile_kernels *k = e->k;
    const char *weights = e->weights + layer->weights * e->size;
    for (int64_t column = 0; column < layer->n; column += k->panel) {
        int64_t n = min64(k->panel, layer->n - column), vectors = ceil_div(n, k->vector);
        product p = {.runs = (const run *)(e->runs + 2 * layer->run), .count = layer->runs, .n = n,
                     .ldb = layer->ld, .bias = weights + column * e->size,
                     .b = weights + (layer->ld + column) * e->size};
        int64_t tiles = ceil_div(g->count, k->product_rows[vectors]);
        for (int64_t i = 0, m; i < g->count; i += m) {
            const void *from[TILE_ROWS], *start[TILE_ROWS];
            void *to[TILE_ROWS];
            m = ceil_div(g->count - i, tiles--);
            for (int64_t j = 0; j < m; j++) {
                from[j] = g->state[i + j] + step->x * e->size;
                start[j] = g->state[i + j] + (step->y + column) * e->size;
                to[j] = g->state[i + j] + (step->out + column) * e->size;
            }
            k->product[vectors][m](&p, from, layer->kind == TG_LINEAR ? NULL : start, to);
        }
    }
}

static void run_steps(const sampler *e, int64_t value, const images *g)
{
    for (int64_t i = e->starts[value]; i < e->starts[value + 1]; i++) {
        const tg_step *step = e->steps + i;
        const tg_layer *layer = e->layers + step->layer;
        if (layer->kind <= TG_LINEAR_FROM)
            linear(e, layer, step, g);
        else
            for (int64_t j = 0; j < g->count; j++)
                e->apply(layer->kind, g->state[j] + step->x * e->size, g->state[j] + step->y * e->size,
                         g->state[j] + step->out * e->size, layer->n);
    }
}

/* --- drawing -------------------------------------------------------------------------------------------- */

/* In float64, whatever the network's type. */
static double number(const sampler *e, const char *state, int64_t at)
{
    return e->dtype == TG_F32 ? ((const float *)state)[at] : ((const double *)state)[at];
}

static double log_sigmoid(double x) { return (x < 0 ? x : 0) - log1p(exp(-fabs(x))); }

/* One of the logistics that are mixed: the log of its weight, its mean, 1 / its scale. */
typedef struct { double weight, mean, inverse; } logistic;

/* log of the probability of a level's interval: sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)) */
static double log_probability(logistic l, int level, int last)
{
    const double half = 1. / last, distance = 2 * half * level - 1 - l.mean;
    double sum = level < last ? log_sigmoid((distance + half) * l.inverse) : 0;
    sum += level > 0 ? log_sigmoid((half - distance) * l.inverse) : 0;
    return level > 0 && level < last ? sum + log(-expm1(-2 * half * l.inverse)) : sum;
}

/* Component k of a value's mixture. Its weight takes account of how well it explains `before`, the colors of the pixel
 * that are already drawn. */
static logistic component(const sampler *e, const char *state, int64_t value, int64_t k, const uint8_t *before)
{
    const int64_t colors = e->s->colors, own = e->drawn_from / e->s->mixtures;
    const int last = (int)e->s->levels - 1;
    const int32_t *at = e->results + value * e->drawn_from + k * own, *moves = at + 1 + 2 * colors;
    logistic l = {.weight = number(e, state, at[0])};
    for (int64_t i = 0; i <= value % colors; i++) {
        if (i)
            l.weight += log_probability(l, before[i - 1], last);
        l.mean = number(e, state, at[1 + i]);
        for (int64_t j = 0; j < i; j++)
            l.mean += tanh(number(e, state, *moves++)) * (2. / last * before[j] - 1);
        double log_scale = number(e, state, at[1 + colors + i]);
        l.inverse = exp(-(log_scale < -7 ? -7 : log_scale > 7 ? 7 : log_scale));
        if (!isfinite(l.mean))
            l.weight = NAN;
    }
    return l;
}

/* Logs of the levels' probabilities, up to a common constant. The first interval and the last have one edge only. */
static void mix(const sampler *e, const char *state, int64_t value, const uint8_t *before, int64_t padded, double *x)
{
    const int64_t levels = e->s->levels;
    const double half = 1. / (double)(levels - 1);
    double top = -INFINITY, first = 0, last = 0;
    for (int64_t k = 0; k < e->s->mixtures; k++)
        top = fmax(top, component(e, state, value, k, before).weight);
    for (int64_t i = 0; i < padded; i++)
        x[i] = 0;
    for (int64_t k = 0; k < e->s->mixtures; k++) {
        logistic l = component(e, state, value, k, before);
        double weight = exp(l.weight - top), step = 2 * half * l.inverse;
        double begin = (half - 1 - l.mean) * l.inverse, end = (1 - half - l.mean) * l.inverse;
        e->add_intervals(x, weight * -expm1(-step), begin, step, padded);
        first += weight * exp(log_sigmoid(begin));
        last += weight * exp(log_sigmoid(-end));
    }
    x[0] = first, x[levels - 1] = last;
    for (int64_t i = 0; i < levels; i++)
        x[i] = log(x[i]);
}

/* A value's logits, followed by -infinity up to a multiple of WIDE. */
static int64_t gather(const sampler *e, const char *state, int64_t value, const uint8_t *before, double *x)
{
    const int64_t levels = e->s->levels, padded = ceil_div(levels, WIDE) * WIDE;
    if (e->s->mixtures)
        mix(e, state, value, before, padded, x);
    else
        for (int64_t i = 0; i < levels; i++)
            x[i] = number(e, state, e->results[value * levels + i]);
    for (int64_t i = levels; i < padded; i++)
        x[i] = -INFINITY;
    return padded;
}

static int likeliest(const double *x, int64_t levels)
{
    int best = 0;
    for (int i = 0; i < levels; i++) {
        if (isnan(x[i]))
            return -1;
        best = x[i] > x[best] ? i : best;
    }
    return isinf(x[best]) ? -1 : best;
}

/* The level at which the cumulative probability passes u; -1 if there is none, as a logit is NaN or all are
 * infinite: then so is the sum. */
static int draw(const sampler *e, const char *state, int64_t value, const uint8_t *before, double u)
{
    double x[MOST_LEVELS], sum = 0;
    const int64_t levels = e->s->levels, padded = gather(e, state, value, before, x);
    int level = 0;
    if (e->s->temperature == 0)
        return likeliest(x, levels);
    e->shares(x, e->s->temperature, padded);
    for (int64_t i = 0; i < levels; i++)
        x[i] = sum += x[i];
    if (!(sum > 0))
        return -1;
    for (int64_t rest = levels - 1, half; rest > 0; rest -= half) {     /* how many of x are at most u * sum */
        half = ceil_div(rest, 2);
        level += x[level + half - 1] <= u * sum ? (int)half : 0;
    }
    return level;
}

/* Draws a value for each image of a group. Returns 0 if one can't be drawn. */
static int draw_group(sampler *e, int64_t value, const images *g)
{
    const tg_sampler *s = e->s;
    for (int64_t j = 0; j < g->count; j++) {
        uint8_t *to = e->x + (g->first + j) * s->values + value;
        const uint8_t *before = to - (s->mixtures ? value % s->colors : 0);
        int level = draw(e, g->state[j], value, before, e->uniform[value * s->n + g->first + j]);
        if (level < 0) {
            long long before = atomic_load(&e->failed);
            while (value < before && !atomic_compare_exchange_weak(&e->failed, &before, value))
                continue;
            return 0;
        }
        *to = (uint8_t)level;
    }
    return 1;
}

static void sample_group(void *context, int64_t item, int slot)
{
    sampler *e = context;
    const tg_sampler *s = e->s;
    images g = {item * e->group, min64(e->group, s->n - item * e->group), {0}};
    (void)slot;
    for (int64_t j = 0; j < g.count; j++)
        g.state[j] = e->state + (g.first + j) * s->size * e->size;
    for (int64_t value = s->first; value < s->last; value++) {
        for (int64_t j = 0; j < g.count && value; j++)
            memcpy(g.state[j] + e->places[value - 1] * e->size,
                   e->scaled + e->x[(g.first + j) * s->values + value - 1] * e->size, (size_t)e->size);
        run_steps(e, value, &g);
        if (value >= s->known && !draw_group(e, value, &g))
            return;
    }
}

/* --- the call ------------------------------------------------------------------------------------------- */

static int within(int64_t at, int64_t n, int64_t size) { return at >= 0 && n >= 0 && at <= size - n; }

static int valid_layer(const sampler *e, const tg_layer *layer)
{
    int64_t depth = 0, numbers;
    if (layer->kind < TG_LINEAR || layer->kind > TG_GATED || layer->n < 1 || layer->n > LIMIT)
        return 0;
    if (layer->kind > TG_LINEAR_FROM)
        return layer->low == 0 && layer->high == layer->n;
    if (!within(layer->run, layer->runs, e->s->runs) || layer->ld < layer->n || layer->ld > LIMIT
        || layer->ld % WIDE || layer->low > 0 || layer->low < -LIMIT || layer->high < 0 || layer->high > LIMIT)
        return 0;
    for (int64_t i = layer->run; i < layer->run + layer->runs; i++) {
        int64_t from = e->runs[2 * i], length = e->runs[2 * i + 1];
        if (length < 0 || length > LIMIT || from < layer->low || from > layer->high - length)
            return 0;
        depth += length;
    }
    return !__builtin_mul_overflow(depth + 1, layer->ld, &numbers)
        && within(layer->weights, numbers, e->s->weights);
}

static int valid_step(const sampler *e, const tg_step *step)
{
    if (!within(step->layer, 1, e->s->layers))
        return 0;
    const tg_layer *layer = e->layers + step->layer;
    return within(step->out, layer->n, e->s->size) && within(step->y, layer->n, e->s->size)
        && within(step->x + layer->low, layer->high - layer->low, e->s->size);
}

static int valid_sizes(const tg_sampler *s)
{
    const int64_t sizes[] = {s->n, s->values, s->size, s->layers, s->runs, s->steps, s->weights};
    for (int i = 0; i < (int)(sizeof sizes / sizeof *sizes); i++)
        if (sizes[i] < 0 || sizes[i] > LIMIT)
            return 0;
    return sampler_results(s) > 0 && s->levels <= MOST_LEVELS && s->first >= 0 && s->first <= s->last
        && s->last <= s->values && s->known >= 0 && s->known <= s->values && s->temperature >= 0;
}

/* Whether all that a value needs is in bounds: its steps, the value before, and the numbers it is drawn from. */
static int valid_value(const sampler *e, int64_t value)
{
    const tg_sampler *s = e->s;
    int64_t from = e->starts[value], to = e->starts[value + 1];
    if (from < 0 || from > to || to > s->steps || (value && !within(e->places[value - 1], 1, s->size)))
        return 0;
    for (int64_t i = from; i < to; i++)
        if (!valid_step(e, e->steps + i))
            return 0;
    for (int64_t i = 0; i < e->drawn_from && value >= s->known; i++)
        if (!within(e->results[value * e->drawn_from + i], 1, s->size))
            return 0;
    for (int64_t j = 0; j < s->n && value && (value == s->first || value <= s->known); j++)
        if (e->x[j * s->values + value - 1] >= s->levels)
            return 0;
    return 1;
}

int tg_sample(int dtype, const tg_sampler *s, const tg_layer *layers, const int64_t *runs, const void *weights,
              const tg_step *steps, const int64_t *starts, const int32_t *places, const void *scaled,
              const int32_t *results, const double *uniform, void *state, uint8_t *x, int threads)
{
    if (!valid_dtype(dtype) || !valid_sizes(s))
        return TG_BAD_ARGUMENT;
    sampler e = {.s = s, .k = tiles(dtype), .apply = applies[tg_isa()][dtype],
                 .shares = all_shares[tg_isa()][TG_F64], .add_intervals = all_add_intervals[tg_isa()][TG_F64],
                 .layers = layers, .runs = runs, .weights = weights, .steps = steps, .starts = starts,
                 .places = places, .scaled = scaled, .results = results, .uniform = uniform, .state = state,
                 .x = x, .dtype = dtype, .size = element_size(dtype), .drawn_from = sampler_results(s),
                 .failed = s->values};
    for (int64_t i = 0; i < s->layers; i++)
        if (!valid_layer(&e, layers + i))
            return TG_BAD_ARGUMENT;
    for (int64_t value = s->first; value < s->last; value++)
        if (!valid_value(&e, value))
            return TG_BAD_ARGUMENT;
    threads = clamp_threads(threads);
    e.group = max64(1, min64(GROUP, ceil_div(s->n, threads)));
    parallel(ceil_div(s->n, e.group), threads, sample_group, &e);
    int64_t failed = atomic_load(&e.failed);
    return failed < s->values ? (int)(-1 - failed) : TG_OK;
}
