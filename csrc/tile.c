/* The register tiles of tile.inc in every variant, the choice among them, products of packed matrices with them, and what
 * the registers can do at most. */
#include <string.h>
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

void multiply_panels(const tile_kernels *k, int64_t rows, int64_t columns, int64_t depth, int64_t size, const char *a,
                     int64_t lda, const char *b, char *c, int64_t ldc)
{
    run all = {0, depth};
    for (int64_t column = 0, n; column < columns; column += n) {
        n = min64(k->panel, columns - column);
        product p = {.runs = &all, .count = 1, .ldb = n, .n = n, .b = b + depth * column * size};
        int64_t vectors = n / k->vector, left = ceil_div(rows, k->product_rows[vectors]);
        for (int64_t done = 0, m; done < rows; done += m, left--) {
            const void *from[TILE_ROWS];
            void *to[TILE_ROWS];
            m = ceil_div(rows - done, left);
            for (int64_t i = 0; i < m; i++) {
                from[i] = a + (done + i) * lda * size;
                to[i] = c + ((done + i) * ldc + column) * size;
                for (int64_t line = 0; line < n * size; line += 64)     /* needed after the product */
                    __builtin_prefetch((char *)to[i] + line, 1);
            }
            k->product[vectors][m](&p, from, NULL, to);
        }
    }
}

void add_outer(const tile_kernels *k, int64_t pixels, int64_t rows, int64_t columns, int64_t size, const char *a,
               const int64_t *at, const char *b, int64_t ldb, char *c, int add)
{
    for (int64_t column = 0, n; column < columns; column += n) {
        n = min64(k->panel, columns - column);
        int64_t vectors = n / k->vector, left = ceil_div(rows, k->outer_rows[vectors]);
        outer o = {.pixels = pixels, .at = at, .ldb = ldb, .ldc = columns, .n = n, .b = b + column * size, .ahead = b,
                   .add = add};
        for (int64_t row = 0, m; row < rows; row += m, left--) {
            m = ceil_div(rows - row, left);
            k->outer[vectors][m](&o, a + row * size, c + (row * columns + column) * size);
        }
    }
}

static void peak_item(void *context, int64_t item, int slot)
{
    float sums[16] = {0.5f};                    /* a sum converges to 1: no overflow, no subnormal numbers */
    int64_t *operations = context;
    (void)slot;
    for (int i = 1; i < 16; i++)
        sums[i] = sums[0];
    operations[item] = tiles(TG_F32)->multiply_adds(1 << 17, sums);
    if (sums[0] < 0)                            /* never, but so the compiler has to compute them */
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
