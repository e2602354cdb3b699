/* Softmax cross entropy of rows of logits, and its gradient (tinygen.h has the formulas). A row is the work of
 * a warp, or with few classes of 4 lanes; it is read for its maximum, for the sum of exponentials and for the result,
 * all but the first time from a cache. Bound by memory. */
#include "runtime/cuda.cuh"

namespace {

enum { LOSS_THREADS = 256, WARP = 32, FEW_LANES = 4, FEW_CLASSES = 16, BLOCK = 64 };

/* A row's maximum, and the sum of exp(x - maximum). */
template <class real> struct softmax { real maximum, sum; };

template <int width, class real>
__device__ __forceinline__ softmax<real> softmax_of(const real *row, int64_t classes, int lane, int lanes)
{
    softmax<real> s = {-(real)INFINITY, 0};
    for (int64_t j = lane * width; j < classes; j += lanes * width) {
        pack<real, width> x = load<width>(row + j);
#pragma unroll
        for (int i = 0; i < width; i++)
            s.maximum = larger(s.maximum, x.v[i]);
    }
    s.maximum = over_lanes(s.maximum, lanes, maximum());
    for (int64_t j = lane * width; j < classes;) {
        real block = 0;                                 /* or the error would grow with the classes */
        for (int64_t end = j + BLOCK * lanes * width; j < end && j < classes; j += lanes * width) {
            pack<real, width> x = load<width>(row + j);
#pragma unroll
            for (int i = 0; i < width; i++)
                block += exp(x.v[i] - s.maximum);
        }
        s.sum += block;
    }
    s.sum = over_lanes(s.sum, lanes, addition());
    return s;
}

/* out: the loss of each row, or (gloss given) the gradient of its logits. */
template <int width, bool backward, class real>
__global__ void __launch_bounds__(LOSS_THREADS, 16 / sizeof(real))
cross_entropy(int64_t rows, int64_t classes, int lanes, const real *logits, const int64_t *labels, const real *gloss,
              real *out)
{
    int lane = threadIdx.x % lanes;
    int64_t row = (int64_t)blockIdx.x * (LOSS_THREADS / lanes) + threadIdx.x / lanes;
    bool mine = row < rows;
    row = mine ? row : rows - 1;                        /* lanes without a row help the others' reductions */
    const real *x = logits + row * classes;
    softmax<real> s = softmax_of<width>(x, classes, lane, lanes);
    int64_t label = labels[row];
    bool known = label >= 0 && label < classes;
    if (!mine)
        return;
    if constexpr (!backward) {
        if (lane == 0)
            out[row] = log(s.sum) - (known ? x[label] - s.maximum : (real)NAN);
    } else {
        real g = known ? gloss[row] : (real)NAN, share = g / s.sum;
        for (int64_t j = lane * width; j < classes; j += lanes * width) {
            pack<real, width> p = load<width>(x + j);
#pragma unroll
            for (int i = 0; i < width; i++)
                p.v[i] = exp(p.v[i] - s.maximum) * share - (j + i == label ? g : 0);
            store<width>(out + row * classes + j, p);
        }
    }
}

template <bool backward>
int run_rows(int dtype, int64_t rows, int64_t classes, const void *logits, const int64_t *labels, const void *gloss,
             void *out)
{
    int lanes = classes <= FEW_CLASSES ? (int)FEW_LANES : (int)WARP;
    int64_t blocks = ceil_of<int64_t>(rows, LOSS_THREADS / lanes);
    if (!rows_valid(dtype, rows, classes) || classes < 1 || blocks > INT32_MAX)
        return TG_BAD_ARGUMENT;
    if (!rows)
        return TG_OK;
    return typed(dtype, [&](auto zero) {
        typedef decltype(zero) real;
        bool wide = classes % widest<real>() == 0 && aligned(logits) && (!backward || aligned(out));
        auto kernel = wide ? cross_entropy<widest<real>(), backward, real> : cross_entropy<1, backward, real>;
        LAUNCH(kernel, (unsigned)blocks, LOSS_THREADS, rows, classes, lanes, (const real *)logits, labels,
               (const real *)gloss, (real *)out);
        return launched();
    });
}

}

int tg_cross_entropy(int dtype, int64_t rows, int64_t classes, const void *logits, const int64_t *labels, void *loss,
                     int)
{
    return run_rows<false>(dtype, rows, classes, logits, labels, NULL, loss);
}

int tg_cross_entropy_backward(int dtype, int64_t rows, int64_t classes, const void *logits, const int64_t *labels,
                              const void *gloss, void *glogits, int)
{
    return run_rows<true>(dtype, rows, classes, logits, labels, gloss, glogits);
}
