/* The register tiles of tile.inc, in every variant, and the choice among them; images transposed;
 * and what the registers can do at most. */
#include "tile.h"
#define FAMILY "tile.inc"
#include "runtime/variants.h"

const tile_kernels *tiles(int dtype)
{
    static const tile_kernels *const table[][2] = {
        {&kernels_f32_base, &kernels_f64_base},
#ifdef __x86_64__
        {&kernels_f32_avx2, &kernels_f64_avx2}, {&kernels_f32_avx512, &kernels_f64_avx512},
#endif
    };
    return table[tg_isa()][dtype];
}

enum { ITEM = 1 << 14 };                /* elements that one thread takes at a time */

typedef struct {
    const tile_kernels *k;
    const char *x;
    char *y;
    int64_t rows, columns, band, bands, size;           /* an item: `band` rows of a matrix */
} transposition;

static void transpose_item(void *context, int64_t item, int slot)
{
    const transposition *t = context;
    int64_t matrix = item / t->bands * t->rows * t->columns, row = item % t->bands * t->band;
    (void)slot;
    t->k->transpose(t->x + (matrix + row * t->columns) * t->size, t->columns, t->y + (matrix + row) * t->size,
                    t->rows, min64(t->band, t->rows - row), t->columns);
}

int tg_transpose(int dtype, int64_t n, int64_t rows, int64_t columns, const void *x, void *y, int threads)
{
    int64_t all;
    if (!valid_dtype(dtype) || n < 0 || rows < 0 || columns < 0 || __builtin_mul_overflow(rows, columns, &all)
        || __builtin_mul_overflow(all, n + 1, &all) || all > INT64_MAX / 64)
        return TG_BAD_ARGUMENT;
    if (!rows || !columns)
        return TG_OK;
    transposition t = {.k = tiles(dtype), .x = x, .y = y, .rows = rows, .columns = columns,
                       .band = ceil_div(ITEM, columns), .size = element_size(dtype)};
    t.bands = ceil_div(rows, t.band);
    parallel(n * t.bands, clamp_threads(threads), transpose_item, &t);
    return TG_OK;
}

static void peak_item(void *context, int64_t item, int slot)
{
    float sums[16] = {0.5f};                    /* a sum converges to 1: no overflow, no subnormal numbers */
    int64_t *operations = context;
    (void)slot;
    for (int i = 1; i < 16; i++)
        sums[i] = sums[0];
    operations[item] = tiles(TG_F32)->multiply_adds(1 << 17, sums);
    if (sums[0] < 0)                            /* never: but the sums are asked for */
        operations[item] = 0;
}

int64_t tg_peak(int threads)
{
    enum { ITEMS = 8 };                         /* a thread: one that comes late takes fewer */
    int64_t operations[ITEMS * MAX_THREADS], all = 0;
    threads = clamp_threads(threads);
    parallel(ITEMS * threads, threads, peak_item, operations);
    for (int i = 0; i < ITEMS * threads; i++)
        all += operations[i];
    return all;
}
