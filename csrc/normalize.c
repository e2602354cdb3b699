/* Batch norm and group norm.
 *
 * Batch norm over the rows of x (rows, channels), with the batch's own mean and (biased) variance:
 *
 *     y = (x - mean) * weight / sqrt(var + eps) + bias
 *     gx = weight / sqrt(var + eps)
 *        * (gy - average(gy) - (x - mean) * average(gy * (x - mean)) / (var + eps))
 *
 * Rows are summed in chunks of CHUNK, whose moments are combined in order and in float64. So no sum in float32 gets
 * long enough to lose digits, the bytes are the same for every number of threads, and x is read only twice.
 *
 * Group norm, of each image and group of channels by itself, and silu after it on the way. A thread owns whole images,
 * which stay in its cache: from memory x is read once, and backward so is gy. */
#include <math.h>
#include <string.h>
#include "runtime/internal.h"

enum { CHUNK = 256 };

typedef struct {
    int64_t rows, channels;
    const void *x, *gy, *mean;
    void *y, *scale, *shift, *slope, *partial;
} norm;

typedef struct {
    int64_t n, pixels, channels, groups;
    int silu;
    double eps;
    const void *x, *shift, *gy, *weight, *bias;
    void *y, *mean, *rstd, *gshift;     /* backward, y is gx */
    double *totals;                     /* of each image: sums over its pixels of the gradients, for weight and bias */
    void *rows;                         /* of each slot: see group_rows */
} group_norm;

/* How many numbers a thread needs for an image: four factors of each channel, then two sums for each chunk. */
static int64_t group_rows(const group_norm *b)
{
    return round_up((4 + 2 * ceil_div(b->pixels, CHUNK)) * b->channels, ALIGNMENT);
}

#define FAMILY "normalize.inc"
#include "runtime/variants.h"

static const parallel_task moments[][2] = TABLE(moments_item), normalize[][2] = TABLE(normalize_item),
    gradients[][2] = TABLE(gradient_item), normalize_backward[][2] = TABLE(normalize_backward_item),
    groups_task[][2] = TABLE(group_item), groups_backward_task[][2] = TABLE(group_backward_item);

static double get(int dtype, const void *array, int64_t i)
{
    return dtype == TG_F32 ? (double)((const float *)array)[i] : ((const double *)array)[i];
}

static void set(int dtype, void *array, int64_t i, double value)
{
    if (dtype == TG_F32)
        ((float *)array)[i] = (float)value;
    else
        ((double *)array)[i] = value;
}

static int64_t chunks_of(const norm *b) { return ceil_div(b->rows, CHUNK); }
static double rows_of(const norm *b, int64_t chunk) { return (double)min64(CHUNK, b->rows - chunk * CHUNK); }

/* Three rows of channels for the factors and two for each chunk's sums. */
static int allocate(norm *b, int dtype)
{
    plan p = {0};
    size_t size = (size_t)element_size(dtype), row[3];
    for (int i = 0; i < 3; i++)
        row[i] = reserve(&p, b->channels, size);
    size_t partial = reserve(&p, 2 * b->channels * chunks_of(b), size);
    char *memory = scratch(DATA, &p);
    if (!memory)
        return TG_NO_MEMORY;
    b->scale = memory + row[0];
    b->shift = memory + row[1];
    b->slope = memory + row[2];
    b->partial = memory + partial;
    return TG_OK;
}

/* All chunks' means and squares around them to those of all rows (Chan, Golub, LeVeque 1979). */
static void combine(const norm *b, int dtype, int64_t j, double *mean, double *var)
{
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < chunks_of(b); i++)
        sum += get(dtype, b->partial, 2 * i * b->channels + j) * rows_of(b, i);
    *mean = sum / (double)b->rows;
    for (int64_t i = 0; i < chunks_of(b); i++) {
        double d = get(dtype, b->partial, 2 * i * b->channels + j) - *mean;
        squares += get(dtype, b->partial, (2 * i + 1) * b->channels + j) + d * d * rows_of(b, i);
    }
    *var = squares / (double)b->rows;
}

static double or_default(int dtype, const void *array, int64_t j, double value)
{
    return array ? get(dtype, array, j) : value;
}

int tg_batch_norm(int dtype, int64_t rows, int64_t channels, const void *x, const void *weight,
                  const void *bias, double eps, void *y, void *mean, void *var, int threads)
{
    norm b = {.rows = rows, .channels = channels, .x = x, .y = y, .mean = mean};
    if (!rows_valid(dtype, rows, channels) || rows < 1)
        return TG_BAD_ARGUMENT;
    if (allocate(&b, dtype))
        return TG_NO_MEMORY;
    threads = clamp_threads(threads);
    parallel(chunks_of(&b), threads, moments[tg_isa()][dtype], &b);
    for (int64_t j = 0; j < channels; j++) {
        double m, v;
        combine(&b, dtype, j, &m, &v);
        set(dtype, mean, j, m);
        set(dtype, var, j, v);
        set(dtype, b.scale, j, or_default(dtype, weight, j, 1) / sqrt(v + eps));
        set(dtype, b.shift, j, or_default(dtype, bias, j, 0));
    }
    parallel(chunks_of(&b), threads, normalize[tg_isa()][dtype], &b);
    release_scratch();
    return TG_OK;
}

int tg_batch_norm_backward(int dtype, int64_t rows, int64_t channels, const void *x, const void *weight,
                           const void *mean, const void *var, double eps, const void *gy, void *gx,
                           void *gweight, void *gbias, int threads)
{
    norm b = {.rows = rows, .channels = channels, .x = x, .gy = gy, .y = gx, .mean = mean};
    if (!rows_valid(dtype, rows, channels) || rows < 1)
        return TG_BAD_ARGUMENT;
    if (allocate(&b, dtype))
        return TG_NO_MEMORY;
    threads = clamp_threads(threads);
    parallel(chunks_of(&b), threads, gradients[tg_isa()][dtype], &b);
    for (int64_t j = 0; j < channels; j++) {
        double sum = 0, dot = 0, power = get(dtype, var, j) + eps;
        for (int64_t i = 0; i < chunks_of(&b); i++) {
            sum += get(dtype, b.partial, 2 * i * channels + j);
            dot += get(dtype, b.partial, (2 * i + 1) * channels + j);
        }
        set(dtype, gweight, j, dot / sqrt(power));
        set(dtype, gbias, j, sum);
        set(dtype, b.scale, j, or_default(dtype, weight, j, 1) / sqrt(power));
        set(dtype, b.shift, j, sum / (double)rows);
        set(dtype, b.slope, j, dot / (double)rows / power);
    }
    parallel(chunks_of(&b), threads, normalize_backward[tg_isa()][dtype], &b);
    release_scratch();
    return TG_OK;
}

/* --- group norm ------------------------------------------------------------------------------------------ */

static int allocate_groups(group_norm *b, int dtype, int backward, int threads)
{
    plan p = {0};
    size_t totals = reserve(&p, backward ? 2 * b->n * b->channels : 0, sizeof(double));
    size_t rows = reserve(&p, threads * group_rows(b), (size_t)element_size(dtype));
    char *memory = scratch(DATA, &p);
    if (!memory)
        return TG_NO_MEMORY;
    b->totals = (double *)(void *)(memory + totals);
    b->rows = memory + rows;
    return TG_OK;
}

int tg_group_norm(int dtype, int64_t n, int64_t pixels, int64_t channels, int64_t groups, int silu, const void *x,
                  const void *shift, const void *weight, const void *bias, double eps, void *y, void *mean, void *rstd,
                  int threads)
{
    group_norm b = {.n = n, .pixels = pixels, .channels = channels, .groups = groups, .silu = silu, .eps = eps,
                    .x = x, .shift = shift, .weight = weight, .bias = bias, .y = y, .mean = mean, .rstd = rstd};
    if (!groups_valid(dtype, n, pixels, channels, groups))
        return TG_BAD_ARGUMENT;
    threads = clamp_threads(threads);
    if (allocate_groups(&b, dtype, 0, threads))
        return TG_NO_MEMORY;
    parallel(n, threads, groups_task[tg_isa()][dtype], &b);
    release_scratch();
    return TG_OK;
}

int tg_group_norm_backward(int dtype, int64_t n, int64_t pixels, int64_t channels, int64_t groups, int silu,
                           const void *x, const void *shift, const void *weight, const void *bias, const void *mean,
                           const void *rstd, const void *gy, void *gx, void *gshift, void *gweight, void *gbias,
                           int threads)
{
    group_norm b = {.n = n, .pixels = pixels, .channels = channels, .groups = groups, .silu = silu, .x = x, .gy = gy,
                    .shift = shift, .weight = weight, .bias = bias, .y = gx, .gshift = gshift,
                    .mean = (void *)(uintptr_t)mean, .rstd = (void *)(uintptr_t)rstd};
    if (!groups_valid(dtype, n, pixels, channels, groups))
        return TG_BAD_ARGUMENT;
    threads = clamp_threads(threads);
    if (allocate_groups(&b, dtype, 1, threads))
        return TG_NO_MEMORY;
    parallel(n, threads, groups_backward_task[tg_isa()][dtype], &b);
    for (int64_t j = 0; j < channels; j++) {
        double sum = 0, dot = 0;
        for (int64_t i = 0; i < n; i++) {
            sum += b.totals[2 * i * channels + j];
            dot += b.totals[(2 * i + 1) * channels + j];
        }
        set(dtype, gweight, j, dot);
        set(dtype, gbias, j, sum);
    }
    release_scratch();
    return TG_OK;
}
