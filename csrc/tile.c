/* The register tiles of tile.inc, in every variant, and the choice among them. */
#include "tile.h"
#define FAMILY "tile.inc"
#include "variants.h"

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
