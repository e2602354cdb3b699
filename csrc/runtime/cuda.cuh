/* What the .cu files share. They are compiled by nvcc, and by g++ with the emulator, which is why kernels are launched
 * by LAUNCH(kernel, blocks, threads, arguments...), shared arrays are declared by SHARED(type, name, [size][size]), and
 * nothing else of CUDA is used than what emulator.h has. */
#ifndef TINYGEN_CUDA_CUH
#define TINYGEN_CUDA_CUH
#include <stdint.h>
#include "tinygen.h"
#include "tinygen_cuda.h"
#include "valid.h"

#ifdef __CUDACC__
#include <cuda_runtime.h>
#define LAUNCH(kernel, blocks, threads, ...) (kernel)<<<blocks, threads, 0, cuda_stream()>>>(__VA_ARGS__)
#define SHARED(type, name, dimensions) __shared__ __align__(16) type name dimensions
#else
#include "emulator/emulator.h"
#endif

/* --- on the host ---------------------------------------------------------------------------------------- */

cudaStream_t cuda_stream();

/* What a kernel returns after its launches: TG_OK or an error of CUDA's. */
int launched();

/* Device memory until the end of the scope, in the order of the stream. p is NULL if there is none. */
struct scratch_memory {
    void *p;
    explicit scratch_memory(int64_t bytes);
    ~scratch_memory();
    scratch_memory(const scratch_memory &) = delete;
    scratch_memory &operator=(const scratch_memory &) = delete;
};

/* Calls f with a zero of that type, from which it takes the type to launch for. */
template <class function>
int typed(int dtype, function f)
{
    return dtype == TG_F32 ? f(0.0f) : dtype == TG_F64 ? f(0.0) : (int)TG_BAD_ARGUMENT;
}

static inline int aligned(const void *p) { return (uintptr_t)p % 16 == 0; }

/* --- on both -------------------------------------------------------------------------------------------- */

template <class number>
static inline __host__ __device__ number ceil_of(number a, number b) { return (a + b - 1) / b; }

/* `width` numbers that are read and written at once; their address is a multiple of their size. */
template <class real, int width>
struct __align__(sizeof(real) * width) pack { real v[width]; };

/* How many make 16 bytes, the most that are read at once. */
template <class real>
__host__ __device__ constexpr int widest() { return 16 / (int)sizeof(real); }

/* --- on the device -------------------------------------------------------------------------------------- */

template <int width, class real>
static __device__ __forceinline__ pack<real, width> load(const real *p)
{
    return *(const pack<real, width> *)p;
}

template <int width, class real>
static __device__ __forceinline__ void store(real *p, const pack<real, width> &value)
{
    *(pack<real, width> *)p = value;
}

/* a / b for a >= 0, b > 0: most numbers are small, and small ones are divided in a fifth of the time. */
static __device__ __forceinline__ int64_t quotient(int64_t a, int64_t b)
{
    return (a | b) >> 32 ? a / b : (int64_t)((uint32_t)a / (uint32_t)b);
}

template <class real>
static __device__ __forceinline__ real sigmoid(real x) { return 1 / (1 + exp(-x)); }

/* Of x sigmoid(x). */
template <class real>
static __device__ __forceinline__ real silu_slope(real x)
{
    real s = sigmoid(x);
    return s * (1 + x * (1 - s));
}

/* The larger one; NaN if either is. */
template <class real>
static __device__ __forceinline__ real larger(real a, real b) { return a > b || a != a ? a : b; }

struct maximum {
    template <class real>
    __device__ real operator()(real a, real b) const { return larger(a, b); }
};

struct addition {
    template <class real>
    __device__ real operator()(real a, real b) const { return a + b; }
};

/* Over so many lanes of a warp side by side, a power of two, in pairs: every lane has the same result. */
template <class real, class function>
static __device__ __forceinline__ real over_lanes(real own, int lanes, function f)
{
    for (int bit = lanes / 2; bit; bit /= 2)
        own = f(own, __shfl_xor_sync(0xffffffffu, own, bit));
    return own;
}

/* --- elementwise ---------------------------------------------------------------------------------------- */

/* An array of rows of columns: element (i, j) is p[i * pitch + j]. */
struct rows_in { const void *p; int64_t pitch; };
struct rows_out { void *p; int64_t pitch; };

template <class real, int ins, int outs>
struct operands {
    int64_t rows, columns, in_pitch[ins], out_pitch[outs];
    const real *in[ins];
    real *out[outs];
};

/* Elements (row, column) .. (row, column + width - 1) */
template <int width, class real, int ins, int outs, class function>
static __device__ __forceinline__ void map_pack(const operands<real, ins, outs> &a, int64_t row, int64_t column,
                                                const function &f)
{
    pack<real, width> x[ins], y[outs];
#pragma unroll
    for (int k = 0; k < ins; k++)
        x[k] = load<width>(a.in[k] + row * a.in_pitch[k] + column);
#pragma unroll
    for (int i = 0; i < width; i++) {
        real in[ins], out[outs];
#pragma unroll
        for (int k = 0; k < ins; k++)
            in[k] = x[k].v[i];
        f(in, out);
#pragma unroll
        for (int k = 0; k < outs; k++)
            y[k].v[i] = out[k];
    }
#pragma unroll
    for (int k = 0; k < outs; k++)
        store<width>(a.out[k] + row * a.out_pitch[k] + column, y[k]);
}

enum { MAP_THREADS = 256, MAP_BLOCKS = 1 << 20 };

/* Only a single row may end with less than a pack. */
template <int width, class real, int ins, int outs, class function>
__global__ void __launch_bounds__(MAP_THREADS, 4) map_kernel(operands<real, ins, outs> a, function f)
{
    int64_t packs = ceil_of<int64_t>(a.columns, width), step = (int64_t)gridDim.x * MAP_THREADS;
    for (int64_t i = (int64_t)blockIdx.x * MAP_THREADS + threadIdx.x; i < a.rows * packs; i += step) {
        int64_t row = a.rows == 1 ? 0 : quotient(i, packs), column = (i - row * packs) * width;
        if (width == 1 || column + width <= a.columns)
            map_pack<width>(a, row, column, f);
        else
            for (; column < a.columns; column++)
                map_pack<1>(a, row, column, f);
    }
}

/* f(const real in[ins], real out[outs]) for every element. */
template <class real, int ins, int outs, class function>
static int map(int64_t rows, int64_t columns, const rows_in (&in)[ins], const rows_out (&out)[outs], function f)
{
    operands<real, ins, outs> a;
    int wide = rows == 1 || columns % widest<real>() == 0;
    a.rows = rows;
    a.columns = columns;
    for (int k = 0; k < ins; k++) {
        a.in[k] = (const real *)in[k].p;
        a.in_pitch[k] = in[k].pitch;
        wide = wide && aligned(in[k].p) && (rows == 1 || in[k].pitch % widest<real>() == 0);
    }
    for (int k = 0; k < outs; k++) {
        a.out[k] = (real *)out[k].p;
        a.out_pitch[k] = out[k].pitch;
        wide = wide && aligned(out[k].p) && (rows == 1 || out[k].pitch % widest<real>() == 0);
    }
    int64_t packs = rows * ceil_of<int64_t>(columns, wide ? widest<real>() : 1);
    unsigned blocks = (unsigned)min64(ceil_of<int64_t>(packs, MAP_THREADS), MAP_BLOCKS);
    if (blocks && wide)
        LAUNCH((map_kernel<widest<real>(), real, ins, outs, function>), blocks, MAP_THREADS, a, f);
    else if (blocks)
        LAUNCH((map_kernel<1, real, ins, outs, function>), blocks, MAP_THREADS, a, f);
    return launched();
}

#endif
