/* Affine maps of images' channels (tinygen.h has the formulas): a coupling, an image a block, and a scale and a shift of
 * each channel. All of it is bound by memory. */
#include "columns.cuh"

namespace {

enum { AFFINE_THREADS = 256 };

/* The sum over a block's threads; the first has the result. */
template <class real>
__device__ __forceinline__ real sum_of_block(real own)
{
    SHARED(real, all, [AFFINE_THREADS]);
    all[threadIdx.x] = own;
    __syncthreads();
    for (int half = AFFINE_THREADS / 2; half; half /= 2) {
        if ((int)threadIdx.x < half)
            all[threadIdx.x] += all[threadIdx.x + half];
        __syncthreads();
    }
    return all[0];
}

template <class real>
struct coupling {
    int64_t pixels, channels, k, start;
    const real *x, *both, *gy, *glog_det;
    real *y, *log_det, *gboth;
};

/* s = 2 tanh(v / 2), within +-2 */
template <class real>
__device__ __forceinline__ real log_scale(real v) { return 2 * tanh(v / 2); }

template <class real>
__global__ void __launch_bounds__(AFFINE_THREADS) couple(coupling<real> c)
{
    int64_t size = c.pixels * c.channels;
    const real *x = c.x + blockIdx.x * size, *both = c.both + blockIdx.x * c.pixels * 2 * c.k;
    real *y = c.y + blockIdx.x * size, sum = 0;
    for (int64_t i = threadIdx.x; i < size; i += AFFINE_THREADS) {
        int64_t pixel = quotient(i, c.channels), j = i - pixel * c.channels - c.start;
        if (j < 0 || j >= c.k) {
            y[i] = x[i];
            continue;
        }
        real s = log_scale(both[pixel * 2 * c.k + j]);
        y[i] = x[i] * exp(s) + both[pixel * 2 * c.k + c.k + j];
        sum += s;
    }
    sum = sum_of_block(sum);
    if (threadIdx.x == 0)
        c.log_det[blockIdx.x] = sum;
}

template <class real>
__global__ void __launch_bounds__(AFFINE_THREADS) couple_backward(coupling<real> c)
{
    int64_t size = c.pixels * c.channels, first = blockIdx.x * size;
    const real *both = c.both + blockIdx.x * c.pixels * 2 * c.k;
    real *gboth = c.gboth + blockIdx.x * c.pixels * 2 * c.k, glog_det = c.glog_det ? c.glog_det[blockIdx.x] : 0;
    for (int64_t i = threadIdx.x; i < size; i += AFFINE_THREADS) {
        int64_t pixel = quotient(i, c.channels), j = i - pixel * c.channels - c.start;
        real gy = c.gy ? c.gy[first + i] : 0;
        if (j < 0 || j >= c.k) {
            c.y[first + i] = gy;
            continue;
        }
        int64_t at = pixel * 2 * c.k + j;
        real s = log_scale(both[at]), g = gy * exp(s);
        gboth[at] = (g * c.x[first + i] + glog_det) * (1 - s * s / 4);
        gboth[at + c.k] = gy;
        c.y[first + i] = g;
    }
}

/* An image is a block. */
int coupling_fits(int dtype, int64_t n, int64_t pixels, int64_t channels, int64_t k, int64_t start)
{
    return coupling_valid(dtype, n, pixels, channels, k, start) && n <= INT32_MAX;
}

template <class real>
__global__ void __launch_bounds__(AFFINE_THREADS)
scale(int64_t count, int64_t channels, const real *x, const real *weight, const real *bias, real *y)
{
    int64_t i = (int64_t)blockIdx.x * AFFINE_THREADS + threadIdx.x;
    if (i < count) {
        int64_t j = i - quotient(i, channels) * channels;
        y[i] = x[i] * weight[j] + (bias ? bias[j] : 0);
    }
}

/* A channel's sums of gy and gy * x. */
template <class real>
struct affine_sums {
    real sum, dot;
    struct input { const real *x, *gy; };

    __device__ __forceinline__ void merge(const affine_sums &b)
    {
        sum += b.sum;
        dot += b.dot;
    }

    static __device__ __forceinline__ affine_sums of(const input &in, int64_t i, int64_t step, int count)
    {
        affine_sums all = {0, 0};
#pragma unroll
        for (int k = 0; k < GROUP; k++)
            if (k < count)
                all.merge({in.gy[i + k * step], in.gy[i + k * step] * in.x[i + k * step]});
        return all;
    }
};

template <class real>
struct affine_gradients {
    real *gweight, *gbias;
    __device__ __forceinline__ void operator()(int64_t j, const affine_sums<real> &s) const
    {
        gweight[j] = s.dot;
        gbias[j] = s.sum;
    }
};

int affine_fits(int dtype, int64_t rows, int64_t channels)
{
    return rows_valid(dtype, rows, channels) && ceil_of<int64_t>(rows * channels, AFFINE_THREADS) <= INT32_MAX
        && channels <= 1 << 20;
}

template <class real>
void launch_scale(int64_t rows, int64_t channels, const void *x, const void *weight, const void *bias, void *y)
{
    int64_t count = rows * channels;
    if (count)
        LAUNCH(scale<real>, (unsigned)ceil_of<int64_t>(count, AFFINE_THREADS), AFFINE_THREADS, count, channels,
               (const real *)x, (const real *)weight, (const real *)bias, (real *)y);
}

}

int tg_affine_coupling(int dtype, int64_t n, int64_t pixels, int64_t channels, int64_t k, int64_t start, const void *x,
                       const void *both, void *y, void *log_det, int)
{
    if (!coupling_fits(dtype, n, pixels, channels, k, start))
        return TG_BAD_ARGUMENT;
    return typed(dtype, [&](auto zero) {
        typedef decltype(zero) real;
        coupling<real> c = {pixels, channels, k, start, (const real *)x, (const real *)both, NULL, NULL, (real *)y,
                            (real *)log_det, NULL};
        if (n)
            LAUNCH(couple<real>, (unsigned)n, AFFINE_THREADS, c);
        return launched();
    });
}

int tg_affine_coupling_backward(int dtype, int64_t n, int64_t pixels, int64_t channels, int64_t k, int64_t start,
                                const void *x, const void *both, const void *gy, const void *glog_det, void *gx,
                                void *gboth, int)
{
    if (!coupling_fits(dtype, n, pixels, channels, k, start))
        return TG_BAD_ARGUMENT;
    return typed(dtype, [&](auto zero) {
        typedef decltype(zero) real;
        coupling<real> c = {pixels, channels, k, start, (const real *)x, (const real *)both, (const real *)gy,
                            (const real *)glog_det, (real *)gx, NULL, (real *)gboth};
        if (n)
            LAUNCH(couple_backward<real>, (unsigned)n, AFFINE_THREADS, c);
        return launched();
    });
}

int tg_channel_affine(int dtype, int64_t rows, int64_t channels, const void *x, const void *weight, const void *bias,
                      void *y, int)
{
    if (!affine_fits(dtype, rows, channels))
        return TG_BAD_ARGUMENT;
    return typed(dtype, [&](auto zero) {
        launch_scale<decltype(zero)>(rows, channels, x, weight, bias, y);
        return launched();
    });
}

int tg_channel_affine_backward(int dtype, int64_t rows, int64_t channels, const void *x, const void *weight,
                               const void *gy, void *gx, void *gweight, void *gbias, int)
{
    if (!affine_fits(dtype, rows, channels))
        return TG_BAD_ARGUMENT;
    return typed(dtype, [&](auto zero) {
        typedef decltype(zero) real;
        typedef affine_sums<real> sums;
        int64_t chunks = ceil_of<int64_t>(rows, CHUNK);
        unsigned tiles = (unsigned)ceil_of<int64_t>(channels, LANES);
        scratch_memory memory((chunks * channels + 1) * (int64_t)sizeof(sums));
        sums *partial = (sums *)memory.p;
        if (!partial)
            return (int)TG_NO_MEMORY;
        launch_scale<real>(rows, channels, gy, weight, NULL, gx);
        if (chunks && tiles)
            LAUNCH(sum_chunk<sums>, dim3((unsigned)chunks, tiles), NORM_THREADS,
                   typename sums::input{(const real *)x, (const real *)gy}, rows, channels, partial);
        affine_gradients<real> result = {(real *)gweight, (real *)gbias};
        if (tiles)
            LAUNCH((sum_chunks<sums, affine_gradients<real>>), tiles, NORM_THREADS, (const sums *)partial, chunks,
                   channels, result);
        return launched();
    });
}
