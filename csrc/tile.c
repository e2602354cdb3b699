/* The register tiles of tile.inc in every variant, the choice among them, and what the registers can do at most. */
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
