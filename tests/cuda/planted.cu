/* Kernels with one fault each, which the emulator or a sanitizer has to find; and what they look like without it.
 * Every function takes an array of 4,096 floats. */
#include "runtime/cuda.cuh"

namespace {

enum { N = 64 };

enum fault { NONE, NO_BARRIER, WARP_BARRIER, SHARED_OVERRUN, GLOBAL_OVERRUN, LOST_UPDATE, BLOCKS, DIVERGENCE,
             WARP_DIVERGENCE, UNSET, MISALIGNED };

/* Each thread gives its number to the opposite one through shared memory. */
__global__ void __launch_bounds__(N) exchange(float *x, fault f)
{
    SHARED(float, tile, [N]);
    int i = (int)threadIdx.x;
    if (f != UNSET || i)
        tile[i] = x[i];
    float *neighbor = tile + i + 1;
    if (f == SHARED_OVERRUN && i == N - 1)
        *neighbor = 0;
    if (f == DIVERGENCE && i < N / 2)
        __syncthreads();                                /* half of them */
    if (f == WARP_BARRIER)
        __syncwarp();
    else if (f != NO_BARRIER)
        __syncthreads();
    x[N + i] = tile[N - 1 - i];
    if (f == WARP_DIVERGENCE && i % 2)
        x[i] = __shfl_xor_sync(0xffffffffu, x[i], 1);
}

/* Adds up N numbers. */
__global__ void __launch_bounds__(N) total(float *x, fault f)
{
    float own = x[threadIdx.x];
    if (f == LOST_UPDATE)
        x[2 * N] += own;                                /* everyone at once */
    for (int bit = 16; bit; bit /= 2)
        own += __shfl_xor_sync(0xffffffffu, own, bit);
    if (threadIdx.x % 32 == 0)
        x[N + threadIdx.x / 32] = own;
}

/* Writes to its own part of x. */
__global__ void __launch_bounds__(N) fill(float *x, fault f)
{
    int64_t i = (int64_t)blockIdx.x * N + threadIdx.x;
    if (f == BLOCKS)
        i = (int64_t)blockIdx.x * (N - 1) + threadIdx.x;        /* a block's last is the next one's first */
    if (f == GLOBAL_OVERRUN)
        i += 4096 - N;
    x[i] = 1;
    if (f == MISALIGNED)
        store<4>(x + 1, pack<float, 4>{});
}

}

#pragma GCC visibility push(default)
#define PLANTED(name, kernel, blocks, fault)                            \
    extern "C" int planted_##name(float *x);                            \
    int planted_##name(float *x)                                        \
    {                                                                   \
        LAUNCH(kernel, blocks, N, x, fault);                            \
        return launched();                                              \
    }
PLANTED(nothing, exchange, 1, NONE)
PLANTED(nothing_in_warps, total, 1, NONE)
PLANTED(nothing_in_blocks, fill, 4, NONE)
PLANTED(no_barrier, exchange, 1, NO_BARRIER)
PLANTED(warp_barrier, exchange, 1, WARP_BARRIER)
PLANTED(shared_overrun, exchange, 1, SHARED_OVERRUN)
PLANTED(divergence, exchange, 1, DIVERGENCE)
PLANTED(warp_divergence, exchange, 1, WARP_DIVERGENCE)
PLANTED(unset, exchange, 1, UNSET)
PLANTED(lost_update, total, 1, LOST_UPDATE)
PLANTED(blocks, fill, 4, BLOCKS)
PLANTED(global_overrun, fill, 2, GLOBAL_OVERRUN)
PLANTED(misaligned, fill, 1, MISALIGNED)
PLANTED(too_many_threads, fill, dim3(1, 1, 1 << 16), NONE)
