/* Affine maps of images' channels, which stand between a flow's convolutions: the affine coupling (Dinh et al. 2017), and
 * a scale and a shift of each channel (Kingma & Dhariwal 2018, table 1).
 *
 * Channels are few, two or four, and a vector is long. So a coupling's numbers are first put side by side, a block of
 * them at a time that stays in the L1 cache; and a scale and a shift are repeated until they fill whole vectors: LANES
 * rows are as many vectors as there are channels. Sums are taken by image, or by chunks of rows, and then in order: they
 * are the same for every number of threads. */
#include <string.h>
#include "runtime/internal.h"

enum { BLOCK = 512, ITEM = 1 << 12 };   /* numbers that are put side by side; numbers of an item, about */

typedef struct {
    int64_t n, pixels, channels, k, start, images;      /* images: of an item */
    const void *x, *both, *gy, *glog_det;
    void *y, *log_det, *gboth;                          /* backward, y is gx */
} coupling;

typedef struct {
    int64_t rows, channels, item;                       /* item: rows of an item */
    const void *x, *weight, *bias, *gy;
    void *y, *gweight, *gbias;                          /* backward, y is gx */
    void *factors, *partial;                            /* of each slot; of each item */
} affine;

/* Numbers of a slot: two repeated rows of factors, and two sums, for vectors of at most 16. */
static int64_t factors_of(const affine *a) { return 4 * 16 * a->channels; }

#define FAMILY "affine.inc"
#include "runtime/variants.h"

static const parallel_task couple[][2] = TABLE(couple_item), couple_backward[][2] = TABLE(couple_backward_item),
    scale[][2] = TABLE(scale_item), scale_backward[][2] = TABLE(scale_backward_item), add_up[][2] = TABLE(add_up_item);

static int run_coupling(int dtype, coupling *c, const parallel_task task[][2], int threads)
{
    if (!coupling_valid(dtype, c->n, c->pixels, c->channels, c->k, c->start))
        return TG_BAD_ARGUMENT;
    c->images = max64(1, ITEM / (c->pixels * c->channels + 1));
    parallel(ceil_div(c->n, c->images), clamp_threads(threads), task[tg_isa()][dtype], c);
    return TG_OK;
}

int tg_affine_coupling(int dtype, int64_t n, int64_t pixels, int64_t channels, int64_t k, int64_t start, const void *x,
                       const void *both, void *y, void *log_det, int threads)
{
    coupling c = {.n = n, .pixels = pixels, .channels = channels, .k = k, .start = start, .x = x, .both = both, .y = y,
                  .log_det = log_det};
    return run_coupling(dtype, &c, couple, threads);
}

int tg_affine_coupling_backward(int dtype, int64_t n, int64_t pixels, int64_t channels, int64_t k, int64_t start,
                                const void *x, const void *both, const void *gy, const void *glog_det, void *gx,
                                void *gboth, int threads)
{
    coupling c = {.n = n, .pixels = pixels, .channels = channels, .k = k, .start = start, .x = x, .both = both, .gy = gy,
                  .glog_det = glog_det, .y = gx, .gboth = gboth};
    return run_coupling(dtype, &c, couple_backward, threads);
}

static int64_t items_of(const affine *a) { return ceil_div(a->rows, a->item); }

/* The rows of an item, and memory; sums: of each channel and item. */
static int plan_affine(int dtype, affine *a, int threads, int64_t sums)
{
    plan p = {0};
    size_t size = (size_t)element_size(dtype);
    a->item = max64(64, ITEM / (a->channels + 1));
    size_t factors = reserve(&p, threads * factors_of(a), size);
    size_t partial = reserve(&p, sums * a->channels * items_of(a), size);
    char *memory = scratch(DATA, &p);
    if (!memory)
        return TG_NO_MEMORY;
    a->factors = memory + factors;
    a->partial = memory + partial;
    return TG_OK;
}

int tg_channel_affine(int dtype, int64_t rows, int64_t channels, const void *x, const void *weight, const void *bias,
                      void *y, int threads)
{
    affine a = {.rows = rows, .channels = channels, .x = x, .weight = weight, .bias = bias, .y = y};
    if (!rows_valid(dtype, rows, channels))
        return TG_BAD_ARGUMENT;
    threads = clamp_threads(threads);
    if (plan_affine(dtype, &a, threads, 0))
        return TG_NO_MEMORY;
    parallel(items_of(&a), threads, scale[tg_isa()][dtype], &a);
    release_scratch();
    return TG_OK;
}

int tg_channel_affine_backward(int dtype, int64_t rows, int64_t channels, const void *x, const void *weight,
                               const void *gy, void *gx, void *gweight, void *gbias, int threads)
{
    affine a = {.rows = rows, .channels = channels, .x = x, .weight = weight, .gy = gy, .y = gx, .gweight = gweight,
                .gbias = gbias};
    if (!rows_valid(dtype, rows, channels))
        return TG_BAD_ARGUMENT;
    threads = clamp_threads(threads);
    if (plan_affine(dtype, &a, threads, 2))
        return TG_NO_MEMORY;
    parallel(items_of(&a), threads, scale_backward[tg_isa()][dtype], &a);
    parallel(1, 1, add_up[tg_isa()][dtype], &a);
    release_scratch();
    return TG_OK;
}
