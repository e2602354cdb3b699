/* Rows of two arrays beside each other in one, and apart again: each by two launches, one for each of the two. */
#include "runtime/cuda.cuh"

namespace {

struct copy {
    template <class real>
    __device__ void operator()(const real *x, real *y) const { y[0] = x[0]; }
};

int copy_rows(int dtype, int64_t rows, int64_t columns, rows_in x, rows_out y)
{
    return typed(dtype, [&](auto zero) { return map<decltype(zero)>(rows, columns, {x}, {y}, copy()); });
}

int valid(int dtype, int64_t rows, int64_t x_columns, int64_t y_columns)
{
    int64_t columns;
    return rows_valid(dtype, rows, x_columns) && rows_valid(dtype, rows, y_columns)
        && !__builtin_add_overflow(x_columns, y_columns, &columns) && rows_valid(dtype, rows, columns)
        && rows_valid(dtype, 1, columns);
}

}

int tg_cat(int dtype, int64_t rows, int64_t x_columns, int64_t y_columns, const void *x, const void *y, void *out, int)
{
    if (!valid(dtype, rows, x_columns, y_columns))
        return TG_BAD_ARGUMENT;
    int64_t columns = x_columns + y_columns;
    int code = copy_rows(dtype, rows, x_columns, {x, x_columns}, {out, columns});
    char *right = (char *)out + x_columns * element_size(dtype);
    return code ? code : copy_rows(dtype, rows, y_columns, {y, y_columns}, {right, columns});
}

int tg_cat_backward(int dtype, int64_t rows, int64_t x_columns, int64_t y_columns, const void *gout, void *gx, void *gy,
                    int)
{
    if (!valid(dtype, rows, x_columns, y_columns))
        return TG_BAD_ARGUMENT;
    int64_t columns = x_columns + y_columns;
    int code = copy_rows(dtype, rows, x_columns, {gout, columns}, {gx, x_columns});
    const char *right = (const char *)gout + x_columns * element_size(dtype);
    return code ? code : copy_rows(dtype, rows, y_columns, {right, columns}, {gy, y_columns});
}
