/* Optimizers: a step of Adam, of many arrays in one launch. Bound by memory. */
#include "runtime/cuda.cuh"

namespace {

/* Of g, p, m and v; gives p, m and v. */
template <class real>
struct adam {
    real decay, one, two, step, root, eps;
    __device__ void operator()(const real *x, real *y) const
    {
        real g = x[0] + decay * x[1];
        y[1] = x[2] + one * (g - x[2]);
        y[2] = x[3] + two * (g * g - x[3]);
        y[0] = x[1] - step * y[1] / (sqrt(y[2]) * root + eps);
    }
};

enum { ADAM_ARRAYS = 64, ADAM_SHARE = 16 * MAP_THREADS };        /* of a launch; numbers of a block */

/* Arrays (n) and the first blocks that work on each, as much as a launch may take along. */
template <class real>
struct adam_group {
    int count, first[ADAM_ARRAYS + 1];
    int64_t n[ADAM_ARRAYS];
    const real *g[ADAM_ARRAYS];
    real *p[ADAM_ARRAYS], *m[ADAM_ARRAYS], *v[ADAM_ARRAYS];
};

template <class real>
__global__ void __launch_bounds__(MAP_THREADS, 16 / sizeof(real)) adam_arrays(adam_group<real> group, adam<real> f)
{
    const int width = widest<real>();
    int k = 0;
    while ((int)blockIdx.x >= group.first[k + 1])
        k++;
    operands<real, 4, 3> a = {1, group.n[k], {}, {}, {group.g[k], group.p[k], group.m[k], group.v[k]},
                              {group.p[k], group.m[k], group.v[k]}};
    int64_t i = (int64_t)((int)blockIdx.x - group.first[k]) * ADAM_SHARE, end = i + ADAM_SHARE;
    end = end < a.columns ? end : a.columns;
    uintptr_t all = (uintptr_t)a.in[0] | (uintptr_t)a.in[1] | (uintptr_t)a.in[2] | (uintptr_t)a.in[3];
    if (all % 16 == 0) {
        for (int64_t j = i + (int)threadIdx.x * width; j + width <= end; j += MAP_THREADS * width)
            map_pack<width>(a, 0, j, f);
        i = end - (end - i) % width;
    }
    for (i += threadIdx.x; i < end; i += MAP_THREADS)
        map_pack<1>(a, 0, i, f);
}

template <class real>
int run_adam(int64_t count, const int64_t *n, const void *const *g, void *const *p, void *const *m, void *const *v,
             const adam<real> &f)
{
    adam_group<real> group = {};
    for (int64_t i = 0; i < count; i++) {
        int k = group.count, blocks = (int)ceil_of<int64_t>(n[i], ADAM_SHARE);
        if (blocks) {
            group.n[k] = n[i];
            group.g[k] = (const real *)g[i];
            group.p[k] = (real *)p[i], group.m[k] = (real *)m[i], group.v[k] = (real *)v[i];
            group.first[k + 1] = group.first[k] + blocks;
            group.count++;
        }
        if (group.count && (group.count == ADAM_ARRAYS || i == count - 1 || group.first[group.count] > MOST / 2)) {
            LAUNCH(adam_arrays<real>, (unsigned)group.first[group.count], MAP_THREADS, group, f);
            group.count = 0;
        }
    }
    return launched();
}

}

int tg_adam_list(int dtype, int64_t count, const int64_t *n, const void *const *g, void *const *p, void *const *m,
                 void *const *v, int64_t step, double lr, double beta1, double beta2, double eps, double weight_decay,
                 int)
{
    if (!valid_dtype(dtype) || step < 1 || count < 0 || count > MOST)
        return TG_BAD_ARGUMENT;
    for (int64_t i = 0; i < count; i++) {
        const void *arrays[] = {g[i], p[i], m[i], v[i]};
        if (!rows_valid(dtype, 1, n[i]) || n[i] / ADAM_SHARE > MOST / 2)
            return TG_BAD_ARGUMENT;
        for (int j = 0; j < 4; j++)
            for (int k = 0; k < j; k++)
                if (overlap(arrays[j], arrays[k], n[i] * element_size(dtype)))
                    return TG_BAD_ARGUMENT;
    }
    return typed(dtype, [&](auto zero) {
        typedef decltype(zero) real;
        adam<real> f = {(real)weight_decay, (real)(1 - beta1), (real)(1 - beta2),
                        (real)(lr / (1 - pow(beta1, (double)step))),
                        (real)(1 / sqrt(1 - pow(beta2, (double)step))), (real)eps};
        return run_adam<real>(count, n, g, p, m, v, f);
    });
}

int tg_adam(int dtype, int64_t n, const void *g, void *p, void *m, void *v, int64_t step, double lr, double beta1,
            double beta2, double eps, double weight_decay, int)
{
    return tg_adam_list(dtype, 1, &n, &g, &p, &m, &v, step, lr, beta1, beta2, eps, weight_decay, 1);
}
