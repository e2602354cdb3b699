/* Sums over the columns of a matrix, of chunks of its rows and then over the chunks, always in the same order. What is
 * summed is a struct, zero at first, with
 *     input             what it reads
 *     merge             takes in another one
 *     of                that of a few rows, in steps */
#ifndef TINYGEN_COLUMNS_CUH
#define TINYGEN_COLUMNS_CUH
#include "runtime/cuda.cuh"

namespace {

enum { LANES = 32, STRIPS = 8, GROUP = 8, CHUNK = 256, BLOCK = 64, NORM_THREADS = LANES * STRIPS };

/* A column's mean and squares around it, merged as Chan, Golub and LeVeque (1979) do. */
template <class real>
struct moments {
    real n, mean, squares;
    struct input { const real *x; };

    __device__ __forceinline__ void merge(const moments &b)
    {
        if (b.n == 0)
            return;
        real all = n + b.n, d = b.mean - mean;
        mean += d * (b.n / all);
        squares += b.squares + d * d * (n * (b.n / all));
        n = all;
    }

    /* Of `count` rows from the i-th element on, in steps. */
    static __device__ __forceinline__ moments of(const input &in, int64_t i, int64_t step, int count)
    {
        real x[GROUP], sum = 0, squares = 0;
#pragma unroll
        for (int k = 0; k < GROUP; k++)
            x[k] = k < count ? in.x[i + k * step] : 0;
#pragma unroll
        for (int k = 0; k < GROUP; k++)
            sum += x[k];
        real mean = sum / (real)count;
#pragma unroll
        for (int k = 0; k < GROUP; k++)
            squares += k < count ? (x[k] - mean) * (x[k] - mean) : 0;
        return {(real)count, mean, squares};
    }
};

/* Merges the strips' sums of a column; the first strip has the result. */
template <class sums>
__device__ __forceinline__ sums combine(sums own, int lane, int strip)
{
    SHARED(sums, all, [STRIPS][LANES]);
    all[strip][lane] = own;
    __syncthreads();
    if (strip == 0)
        for (int i = 1; i < STRIPS; i++)
            own.merge(all[i][lane]);
    return own;
}

/* A block sums a chunk of an image's rows for LANES columns: each lane has a column, each strip every STRIPS-th row. */
template <class sums>
__global__ void __launch_bounds__(NORM_THREADS)
sum_chunk(typename sums::input in, int64_t rows, int64_t channels, sums *partial)
{
    int lane = threadIdx.x % LANES, strip = threadIdx.x / LANES;
    int64_t chunks = ceil_of<int64_t>(rows, CHUNK), image = blockIdx.x / chunks, from = blockIdx.x % chunks * CHUNK;
    int64_t column = (int64_t)blockIdx.y * LANES + lane, row = image * rows + from + strip;
    int64_t end = image * rows + (from + CHUNK < rows ? from + CHUNK : rows);
    sums own = {};
    for (; column < channels && row < end; row += STRIPS * GROUP) {
        int64_t left = (end - row + STRIPS - 1) / STRIPS;
        own.merge(sums::of(in, row * channels + column, STRIPS * channels, left < GROUP ? (int)left : (int)GROUP));
    }
    own = combine(own, lane, strip);
    if (strip == 0 && column < channels)
        partial[blockIdx.x * channels + column] = own;
}

/* Calls result(column, sums) with the sums over all chunks, of a block of them at a time. */
template <class sums, class function>
__global__ void __launch_bounds__(NORM_THREADS)
sum_chunks(const sums *partial, int64_t chunks, int64_t channels, function result)
{
    int lane = threadIdx.x % LANES, strip = threadIdx.x / LANES;
    int64_t column = (int64_t)blockIdx.x * LANES + lane;
    sums own = {};
    for (int64_t i = strip; column < channels && i < chunks;) {
        sums block = {};
        for (int64_t end = i + BLOCK * STRIPS; i < end && i < chunks; i += STRIPS)
            block.merge(partial[i * channels + column]);
        own.merge(block);
    }
    own = combine(own, lane, strip);
    if (strip == 0 && column < channels)
        result(column, own);
}

}
#endif
