/* Batch normalization over rows of channels (Ioffe & Szegedy 2015), group normalization over those of each image (Wu &
 * He 2018), and their gradients: sums over each column, by chunks of rows and then over the chunks, always in the same
 * order; then elementwise. All of it is bound by memory: forward reads x twice, backward x and gy. */
#include "columns.cuh"

namespace {

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

/* --- group norm ------------------------------------------------------------------------------------------ */

/* What the elements of an image have in common. */
template <class real>
struct grouped {
    int64_t pixels, channels, groups;
    const real *shift, *weight, *bias, *mean, *rstd;

    __device__ __forceinline__ int64_t group_of(int64_t image, int64_t j) const
    {
        return image * groups + quotient(j, channels / groups);
    }

    __device__ __forceinline__ real shift_of(int64_t image, int64_t j) const
    {
        return shift ? shift[image * channels + j] : 0;
    }

    /* What is standardized is x minus this. */
    __device__ __forceinline__ real center(int64_t image, int64_t j) const
    {
        return mean[group_of(image, j)] - shift_of(image, j);
    }

    __device__ __forceinline__ real weight_of(int64_t j) const { return weight ? weight[j] : 1; }

    /* What silu is taken of, of a standardized element. */
    __device__ __forceinline__ real scaled(real centered, int64_t j) const
    {
        return centered * weight_of(j) + (bias ? bias[j] : 0);
    }
};

/* A column's sums of gz, of gz times x, standardized, and of that, with gz the gradient of what silu is taken of. */
template <class real>
struct group_sums {
    real sum, dot, apart;
    struct input { grouped<real> g; const real *x, *gy; int silu; };

    __device__ __forceinline__ void merge(const group_sums &b)
    {
        sum += b.sum;
        dot += b.dot;
        apart += b.apart;
    }

    static __device__ __forceinline__ group_sums of(const input &in, int64_t i, int64_t step, int count)
    {
        group_sums all = {0, 0, 0};
        int64_t j = i % in.g.channels, image = i / (in.g.pixels * in.g.channels);
        real center = in.g.center(image, j), rstd = in.g.rstd[in.g.group_of(image, j)];
#pragma unroll
        for (int k = 0; k < GROUP; k++)
            if (k < count) {
                real centered = (in.x[i + k * step] - center) * rstd, gz = in.gy[i + k * step];
                gz *= in.silu ? silu_slope(in.g.scaled(centered, j)) : 1;
                all.merge({gz, gz * centered, centered});
            }
        return all;
    }
};

/* A channel's part in its group's sums: means are shifted, gradients weighted. */
template <class real>
__device__ __forceinline__ moments<real> part(const moments<real> &m, const grouped<real> &g, int64_t image, int64_t j)
{
    return {m.n, m.mean + g.shift_of(image, j), m.squares};
}
template <class real>
__device__ __forceinline__ group_sums<real> part(const group_sums<real> &s, const grouped<real> &g, int64_t, int64_t j)
{
    return {s.sum * g.weight_of(j), s.dot * g.weight_of(j), 0};
}

/* A thread a group of an image: calls result(group, sums) with the sums over its channels and chunks. */
template <class real, class sums, class function>
__global__ void __launch_bounds__(NORM_THREADS)
sum_groups(grouped<real> g, const sums *partial, int64_t all, function result)
{
    int64_t group = (int64_t)blockIdx.x * NORM_THREADS + threadIdx.x, chunks = ceil_of<int64_t>(g.pixels, CHUNK);
    int64_t width = g.channels / g.groups, image = group / g.groups, first = group % g.groups * width;
    sums own = {};
    if (group >= all)
        return;
    for (int64_t i = image * chunks; i < (image + 1) * chunks; i++)
#pragma unroll 1                     /* more at a time would spill float64's registers */
        for (int64_t j = first; j < first + width; j++)
            own.merge(part(partial[i * g.channels + j], g, image, j));
    result(group, own);
}

template <class real>
struct group_statistics {
    double eps;
    real *mean, *rstd;
    __device__ __forceinline__ void operator()(int64_t group, const moments<real> &m) const
    {
        mean[group] = m.mean;
        rstd[group] = 1 / sqrt(m.squares / m.n + (real)eps);
    }
};

template <class real>
struct group_averages {
    real count, *sum, *dot;
    __device__ __forceinline__ void operator()(int64_t group, const group_sums<real> &s) const
    {
        sum[group] = s.sum / count;
        dot[group] = s.dot / count;
    }
};

template <class real>
struct channel_gradients {
    real *gweight, *gbias;
    __device__ __forceinline__ void operator()(int64_t j, const group_sums<real> &s) const
    {
        gweight[j] = s.dot;
        gbias[j] = s.sum;
    }
};

/* A thread a channel of an image: the gradient of its shift, which is the sum of gx over its pixels. */
template <class real>
__global__ void __launch_bounds__(NORM_THREADS)
shift_gradient(grouped<real> g, const group_sums<real> *partial, int64_t all, const real *sum, const real *dot,
               real *gshift)
{
    int64_t i = (int64_t)blockIdx.x * NORM_THREADS + threadIdx.x, chunks = ceil_of<int64_t>(g.pixels, CHUNK);
    int64_t image = quotient(i, g.channels), j = i - image * g.channels;
    group_sums<real> own = {};
    if (i >= all)
        return;
    for (int64_t k = image * chunks; k < (image + 1) * chunks; k++)
        own.merge(partial[k * g.channels + j]);
    int64_t group = g.group_of(image, j);
    real of_sums = (real)g.pixels * sum[group] + own.apart * dot[group];
    gshift[i] = g.rstd[group] * (own.sum * g.weight_of(j) - of_sums);
}

/* A block row an image: y from x; or, with gy, gx. sum and dot: the groups' averages. */
template <class real>
__global__ void __launch_bounds__(NORM_THREADS)
group_elements(grouped<real> g, int silu, const real *x, const real *gy, const real *sum, const real *dot, real *out)
{
    int64_t size = g.pixels * g.channels, at = (int64_t)blockIdx.x * size, step = (int64_t)gridDim.y * NORM_THREADS;
    for (int64_t i = (int64_t)blockIdx.y * NORM_THREADS + threadIdx.x; i < size; i += step) {
        int64_t j = i - quotient(i, g.channels) * g.channels, group = g.group_of(blockIdx.x, j);
        real rstd = g.rstd[group], centered = (x[at + i] - g.center(blockIdx.x, j)) * rstd, z = g.scaled(centered, j);
        if (gy) {
            real gz = gy[at + i] * (silu ? silu_slope(z) : 1);
            out[at + i] = rstd * (gz * g.weight_of(j) - sum[group] - centered * dot[group]);
        } else
            out[at + i] = silu ? z * sigmoid(z) : z;
    }
}

/* The sums of all channels in all chunks, and of them those of each group. */
template <class real, class sums, class function>
void sum_images(const grouped<real> &g, int64_t n, typename sums::input in, sums *partial, const function &result)
{
    unsigned chunks = (unsigned)(n * ceil_of<int64_t>(g.pixels, CHUNK)), all = (unsigned)(n * g.groups);
    LAUNCH(sum_chunk<sums>, dim3(chunks, (unsigned)ceil_of<int64_t>(g.channels, LANES)), NORM_THREADS, in, g.pixels,
           g.channels, partial);
    LAUNCH((sum_groups<real, sums, function>), ceil_of<unsigned>(all, NORM_THREADS), NORM_THREADS, g,
           (const sums *)partial, (int64_t)all, result);
}

template <class real>
int each_element(const grouped<real> &g, int64_t n, int silu, const void *x, const void *gy, const real *sum,
                 const real *dot, void *out)
{
    unsigned blocks = (unsigned)min64(ceil_of<int64_t>(g.pixels * g.channels, 4 * NORM_THREADS), 1024);
    LAUNCH(group_elements<real>, dim3((unsigned)n, blocks), NORM_THREADS, g, silu, (const real *)x, (const real *)gy,
           sum, dot, (real *)out);
    return launched();
}

/* How much memory: three numbers for each chunk of each channel, two for each group; none if there are too many. */
int64_t bytes_for_groups(int dtype, int64_t n, int64_t pixels, int64_t channels, int64_t groups)
{
    int64_t chunks = ceil_of<int64_t>(pixels, CHUNK);
    if (!groups_valid(dtype, n, pixels, channels, groups) || channels > 1 << 20 || n > INT32_MAX / chunks
        || n > INT32_MAX / groups)
        return 0;
    return (3 * n * chunks * channels + 2 * n * groups + 16) * element_size(dtype);
}

}

int tg_group_norm(int dtype, int64_t n, int64_t pixels, int64_t channels, int64_t groups, int silu, const void *x,
                  const void *shift, const void *weight, const void *bias, double eps, void *y, void *mean, void *rstd,
                  int)
{
    int64_t bytes = bytes_for_groups(dtype, n, pixels, channels, groups);
    if (!bytes)
        return TG_BAD_ARGUMENT;
    scratch_memory memory(bytes);
    if (!memory.p)
        return TG_NO_MEMORY;
    return typed(dtype, [&](auto zero) {
        typedef decltype(zero) real;
        grouped<real> g = {pixels, channels, groups, (const real *)shift, (const real *)weight, (const real *)bias,
                           (const real *)mean, (const real *)rstd};
        if (!n)
            return launched();
        group_statistics<real> result = {eps, (real *)mean, (real *)rstd};
        sum_images<real, moments<real>>(g, n, {(const real *)x}, (moments<real> *)memory.p, result);
        return each_element<real>(g, n, silu, x, nullptr, nullptr, nullptr, y);
    });
}

int tg_group_norm_backward(int dtype, int64_t n, int64_t pixels, int64_t channels, int64_t groups, int silu,
                           const void *x, const void *shift, const void *weight, const void *bias, const void *mean,
                           const void *rstd, const void *gy, void *gx, void *gshift, void *gweight, void *gbias, int)
{
    int64_t bytes = bytes_for_groups(dtype, n, pixels, channels, groups);
    if (!bytes)
        return TG_BAD_ARGUMENT;
    scratch_memory memory(bytes);
    if (!memory.p)
        return TG_NO_MEMORY;
    return typed(dtype, [&](auto zero) {
        typedef decltype(zero) real;
        typedef group_sums<real> sums;
        grouped<real> g = {pixels, channels, groups, (const real *)shift, (const real *)weight, (const real *)bias,
                           (const real *)mean, (const real *)rstd};
        int64_t chunks = n * ceil_of<int64_t>(pixels, CHUNK);
        real *sum = (real *)memory.p, *dot = sum + n * groups;
        sums *partial = (sums *)(dot + n * groups);
        group_averages<real> averages = {(real)(pixels * (channels / groups)), sum, dot};
        channel_gradients<real> result = {(real *)gweight, (real *)gbias};
        if (n)
            sum_images<real, sums>(g, n, {g, (const real *)x, (const real *)gy, silu}, partial, averages);
        LAUNCH((sum_chunks<sums, channel_gradients<real>>), (unsigned)ceil_of<int64_t>(channels, LANES), NORM_THREADS,
               (const sums *)partial, chunks, channels, result);
        if (gshift && n)
            LAUNCH(shift_gradient<real>, (unsigned)ceil_of<int64_t>(n * channels, NORM_THREADS), NORM_THREADS, g,
                   (const sums *)partial, n * channels, (const real *)sum, (const real *)dot, (real *)gshift);
        return n ? each_element<real>(g, n, silu, x, gy, sum, dot, gx) : launched();
    });
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
