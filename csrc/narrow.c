/* Products with a square matrix of a few channels (narrow.h). The register tiles would leave most of a vector idle: its
 * lanes are columns of one pixel. Here they are whole pixels, as they lie in memory:
 *
 *   y[p, o] = sum over k of x[p, k] w[k, o]         lane (p, o) of a vector of y picks x[p, k] from one of x that begins
 *                                                   k numbers later: the same lanes for every k
 *   gw[k, o] = sum over p of x[p, k] gy[p, o]       and so here; at last the lanes of an o are added up
 *
 * A lane meets no pixel but its own, so a NaN stays where it is. Where channels don't divide a vector's lanes, they begin
 * with another channel from vector to vector, until after three vectors, a period, it is the first again.
 *
 * An item is some rows, so few that a lane adds up 512 numbers at most; the sums of items are added up in order, so they
 * are the same for every number of threads. */
#include <string.h>
#include "narrow.h"

enum { ITEM = 1 << 11, FEW = 64, MOST_LANES = 16 };     /* numbers of an item, about; rows for which tables don't pay */

typedef struct {
    int64_t rows, n, item;                      /* item: numbers of an item, whole periods */
    int transposed;
    const void *x, *w, *bias, *gy;
    void *y, *gw, *gbias;
    void *table, *partial;                      /* w's rows and the bias, repeated for a period; sums of items */
} narrow;

#define FAMILY "narrow.inc"
#include "runtime/variants.h"

typedef int (*fits_function)(int64_t n);
static const fits_function fits[][2] = TABLE(fits);
static const parallel_task fill[][2] = TABLE(fill_item), multiply[][2] = TABLE(multiply_item),
    sum[][2] = TABLE(sum_item), add_up[][2] = TABLE(add_up_item);

int is_narrow(int dtype, int64_t rows, int64_t channels)
{
    return rows >= FEW && fits[tg_isa()][dtype](channels);
}

/* Items, and memory: numbers of the table, and of an item's sums. */
static int plan_narrow(int dtype, narrow *g, int64_t table, int64_t sums)
{
    plan p = {0};
    size_t size = (size_t)element_size(dtype);
    g->item = round_up(ITEM, g->n * MOST_LANES);
    size_t table_at = reserve(&p, table, size);
    size_t partial_at = reserve(&p, sums * ceil_div(g->rows * g->n, g->item), size);
    char *memory = scratch(DATA, &p);
    if (!memory)
        return TG_NO_MEMORY;
    g->table = memory + table_at;
    g->partial = memory + partial_at;
    return TG_OK;
}

int narrow_product(int dtype, int64_t rows, int64_t n, const void *x, const void *w, int transposed, const void *bias,
                   void *y, int threads)
{
    narrow g = {.rows = rows, .n = n, .x = x, .w = w, .transposed = transposed, .bias = bias, .y = y};
    if (plan_narrow(dtype, &g, (n + 1) * n * MOST_LANES, 0))
        return TG_NO_MEMORY;
    parallel(1, 1, fill[tg_isa()][dtype], &g);
    parallel(ceil_div(rows * n, g.item), threads, multiply[tg_isa()][dtype], &g);
    release_scratch();
    return TG_OK;
}

int narrow_weight(int dtype, int64_t rows, int64_t n, const void *x, const void *gy, void *gw, void *gbias,
                  int threads)
{
    narrow g = {.rows = rows, .n = n, .x = x, .gy = gy, .gw = gw, .gbias = gbias};
    if (plan_narrow(dtype, &g, 0, (n + 1) * n))
        return TG_NO_MEMORY;
    parallel(ceil_div(rows * n, g.item), threads, sum[tg_isa()][dtype], &g);
    parallel(1, 1, add_up[tg_isa()][dtype], &g);
    release_scratch();
    return TG_OK;
}
