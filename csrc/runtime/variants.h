/* Compiles one family of kernels for every instruction set and element type: `#define FAMILY "x.inc"`, then
 * include this file. In x.inc there are
 *     real     float or double                 PANEL      how many vectors the widest register tile has
 *     vec      a register of LANES of them     NAME(f)    f's name in this variant
 * and the functions of vector.inc. Afterwards TABLE(f) is the table of f's variants, indexed by [tg_isa()][dtype]. */
#include "internal.h"

#define GLUE_(a, b, c) a##_##b##_##c
#define GLUE(a, b, c) GLUE_(a, b, c)
#define NAME(f) GLUE(f, SUFFIX, ISA)
#define vec NAME(vec)
#define loose NAME(loose)
#define bits NAME(bits)
#define LANES ((int)(VECTOR / sizeof(real)))
#define LOAD(p) ((vec)*(const loose *)(p))
#define STORE(p, v) (*(loose *)(p) = (v))
#ifndef INLINE                                  /* sanitizers compile one copy of each, in a fraction of the time */
#define INLINE static inline __attribute__((always_inline, unused))
#endif
#define OUTLINE static __attribute__((noinline, unused))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#define UNROLL_SOME _Pragma("clang loop unroll_count(2)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#define UNROLL_SOME _Pragma("GCC unroll 2")
#endif

#define ISA base
#define VECTOR 16
#ifdef __aarch64__
#define PANEL 4
#else
#define PANEL 2
#endif
#include "types.h"

#ifdef __x86_64__
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define ISA avx2
#define VECTOR 32
#define PANEL 2
#include "types.h"
#ifdef __clang__
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,fma"))), \
                             apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,fma,prefer-vector-width=512")
#endif
#define ISA avx512
#define VECTOR 64
#define PANEL 4
#include "types.h"
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#define PAIR(f, isa) {f##_f32_##isa, f##_f64_##isa}
#define TABLE(f) {PAIR(f, base), PAIR(f, avx2), PAIR(f, avx512)}
#else
#define TABLE(f) {{f##_f32_base, f##_f64_base}}
#endif
