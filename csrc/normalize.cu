/* Batch normalization over rows of channels (Ioffe & Szegedy 2015), and its gradient: sums over each column, by
 * chunks of rows and then over the chunks, always in the same order; then elementwise. All of it is bound by
 * memory: forward reads x twice, backward x and gy. */
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

/* A column's sums of gy and gy * (x - mean). */
template <class real>
struct gradient_sums {
    real sum, dot;
    struct input { const real *x, *gy, *mean; int64_t channels; };

    __device__ __forceinline__ void merge(const gradient_sums &b)
    {
        sum += b.sum;
        dot += b.dot;
    }

    static __device__ __forceinline__ gradient_sums of(const input &in, int64_t i, int64_t step, int count)
    {
        gradient_sums all = {0, 0};
        real mean = in.mean[i % in.channels];
#pragma unroll
        for (int k = 0; k < GROUP; k++)
            if (k < count) {
                real gy = in.gy[i + k * step];
                all.merge({gy, gy * (in.x[i + k * step] - mean)});
            }
        return all;
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

/* A block sums a chunk of rows for LANES columns: each lane has a column, each strip every STRIPS-th row. */
template <class sums>
__global__ void __launch_bounds__(NORM_THREADS)
sum_chunk(typename sums::input in, int64_t rows, int64_t channels, sums *partial)
{
    int lane = threadIdx.x % LANES, strip = threadIdx.x / LANES;
    int64_t column = (int64_t)blockIdx.y * LANES + lane, row = (int64_t)blockIdx.x * CHUNK + strip;
    int64_t end = (int64_t)(blockIdx.x + 1) * CHUNK < rows ? (int64_t)(blockIdx.x + 1) * CHUNK : rows;
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

/* What the elementwise pass needs of each column; `center` is the mean, aligned. */
template <class real>
struct factors { real *center, *scale, *shift, *slope; };

template <class real>
struct statistics {
    const real *weight, *bias;
    double eps;
    real *mean, *var;
    factors<real> f;
    __device__ __forceinline__ void operator()(int64_t j, const moments<real> &m) const
    {
        real v = m.squares / m.n;
        mean[j] = f.center[j] = m.mean;
        var[j] = v;
        f.scale[j] = (weight ? weight[j] : 1) / sqrt(v + (real)eps);
        f.shift[j] = bias ? bias[j] : 0;
    }
};

template <class real>
struct gradients {
    const real *weight, *mean, *var;
    double eps, rows;
    real *gweight, *gbias;
    factors<real> f;
    __device__ __forceinline__ void operator()(int64_t j, const gradient_sums<real> &s) const
    {
        real power = var[j] + (real)eps, root = sqrt(power);
        gweight[j] = s.dot / root;
        gbias[j] = s.sum;
        f.center[j] = mean[j];
        f.scale[j] = (weight ? weight[j] : 1) / root;
        f.shift[j] = s.sum / (real)rows;
        f.slope[j] = s.dot / (real)rows / power;
    }
};

/* Of x and a column's center, scale and shift. */
struct normalize {
    template <class real>
    __device__ void operator()(const real *x, real *y) const { y[0] = (x[0] - x[1]) * x[2] + x[3]; }
};

/* Of gy, x and a column's center, scale, shift and slope. */
struct normalize_backward {
    template <class real>
    __device__ void operator()(const real *x, real *gx) const
    {
        gx[0] = x[3] * (x[0] - x[4] - (x[1] - x[2]) * x[5]);
    }
};

/* The sums of each column go to `result`. `memory` has the factors, then the chunks' sums. */
template <class real, class sums, class function>
int sum_columns(typename sums::input in, int64_t rows, int64_t channels, void *memory, const function &result)
{
    int64_t chunks = ceil_of<int64_t>(rows, CHUNK);
    unsigned tiles = (unsigned)ceil_of<int64_t>(channels, LANES);
    sums *partial = (sums *)((char *)memory + 4 * (channels + 4) * (int64_t)sizeof(real));
    if (chunks > INT32_MAX)
        return TG_BAD_ARGUMENT;
    if (tiles) {
        LAUNCH(sum_chunk<sums>, dim3((unsigned)chunks, tiles), NORM_THREADS, in, rows, channels, partial);
        LAUNCH((sum_chunks<sums, function>), tiles, NORM_THREADS, (const sums *)partial, chunks, channels, result);
    }
    return launched();
}

template <class real>
factors<real> factors_in(void *memory, int64_t channels)
{
    real *p = (real *)memory;
    int64_t row = channels + 4 - channels % 4;          /* each begins at a multiple of 16 bytes */
    return {p, p + row, p + 2 * row, p + 3 * row};
}

int64_t bytes_for(int64_t rows, int64_t channels, int dtype)
{
    return (4 * (channels + 4) + 3 * ceil_of<int64_t>(rows, CHUNK) * channels) * element_size(dtype);
}

}

int tg_batch_norm(int dtype, int64_t rows, int64_t channels, const void *x, const void *weight, const void *bias,
                  double eps, void *y, void *mean, void *var, int)
{
    if (!rows_valid(dtype, rows, channels) || rows < 1)
        return TG_BAD_ARGUMENT;
    scratch_memory memory(bytes_for(rows, channels, dtype));
    if (!memory.p)
        return TG_NO_MEMORY;
    return typed(dtype, [&](auto zero) {
        typedef decltype(zero) real;
        factors<real> f = factors_in<real>(memory.p, channels);
        statistics<real> result = {(const real *)weight, (const real *)bias, eps, (real *)mean, (real *)var, f};
        int error = sum_columns<real, moments<real>>({(const real *)x}, rows, channels, memory.p, result);
        return error ? error : map<real>(rows, channels, {{x, channels}, {f.center, 0}, {f.scale, 0}, {f.shift, 0}},
                                         {{y, channels}}, normalize());
    });
}

int tg_batch_norm_backward(int dtype, int64_t rows, int64_t channels, const void *x, const void *weight,
                           const void *mean, const void *var, double eps, const void *gy, void *gx, void *gweight,
                           void *gbias, int)
{
    if (!rows_valid(dtype, rows, channels) || rows < 1)
        return TG_BAD_ARGUMENT;
    scratch_memory memory(bytes_for(rows, channels, dtype));
    if (!memory.p)
        return TG_NO_MEMORY;
    return typed(dtype, [&](auto zero) {
        typedef decltype(zero) real;
        factors<real> f = factors_in<real>(memory.p, channels);
        gradients<real> result = {(const real *)weight, (const real *)mean, (const real *)var, eps, (double)rows,
                                  (real *)gweight, (real *)gbias, f};
        typename gradient_sums<real>::input in = {(const real *)x, (const real *)gy, (const real *)mean, channels};
        int error = sum_columns<real, gradient_sums<real>>(in, rows, channels, memory.p, result);
        return error ? error : map<real>(rows, channels, {{gy, channels}, {x, channels}, {f.center, 0}, {f.scale, 0},
                                                          {f.shift, 0}, {f.slope, 0}},
                                         {{gx, channels}}, normalize_backward());
    });
}
