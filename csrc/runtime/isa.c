/* Which instruction set the kernels use: what the machine has, or less if asked. */
#include <stdatomic.h>
#include "internal.h"

static atomic_int forced = TG_AVX512;

static int machine(void)
{
#if defined __x86_64__
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")
        && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw"))
        return TG_AVX512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return TG_AVX2;
#endif
    return TG_BASELINE;
}

int tg_isa(void) { return (int)min64(machine(), atomic_load(&forced)); }

int tg_set_isa(int level)
{
    atomic_store(&forced, level < TG_BASELINE ? TG_BASELINE : level);
    return tg_isa();
}
