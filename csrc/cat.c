/* Rows of two arrays beside each other in one, and apart again. */
#include <string.h>
#include "runtime/internal.h"

enum { ITEM_BYTES = 1 << 16, LINE = 64 };       /* of the joined rows of an item; of a cache line */

typedef struct {
    int64_t rows, rows_of_item, x_bytes, y_bytes;       /* of a row */
    char *x, *y, *joined;
    int apart;
} joint;

/* Most rows are short: a call of memcpy for each would take longer than the copying. */
static inline void copy(char *restrict to, const char *restrict from, int64_t bytes)
{
    for (; bytes >= LINE; bytes -= LINE, to += LINE, from += LINE)
        memcpy(to, from, LINE);
    for (; bytes > 0; bytes -= 4, to += 4, from += 4)
        memcpy(to, from, 4);
}

static void joint_item(void *context, int64_t item, int slot)
{
    const joint *j = context;
    int64_t row = item * j->rows_of_item, end = min64(j->rows, row + j->rows_of_item), both = j->x_bytes + j->y_bytes;
    char *x = j->x + row * j->x_bytes, *y = j->y + row * j->y_bytes, *joined = j->joined + row * both;
    (void)slot;
    for (; row < end; row++, x += j->x_bytes, y += j->y_bytes, joined += both)
        if (j->apart) {
            copy(x, joined, j->x_bytes);
            copy(y, joined + j->x_bytes, j->y_bytes);
        } else {
            copy(joined, x, j->x_bytes);
            copy(joined + j->x_bytes, y, j->y_bytes);
        }
}

static int join(int dtype, int64_t rows, int64_t x_columns, int64_t y_columns, const void *x, const void *y,
                const void *joined, int apart, int threads)
{
    int64_t columns, size = element_size(dtype);
    if (!rows_valid(dtype, rows, x_columns) || !rows_valid(dtype, rows, y_columns)
        || __builtin_add_overflow(x_columns, y_columns, &columns) || !rows_valid(dtype, rows, columns)
        || !rows_valid(dtype, 1, columns))
        return TG_BAD_ARGUMENT;
    if (!columns)
        return TG_OK;
    joint j = {.rows = rows, .rows_of_item = ceil_div(ITEM_BYTES, columns * size), .x_bytes = x_columns * size,
               .y_bytes = y_columns * size, .x = (void *)(uintptr_t)x, .y = (void *)(uintptr_t)y,
               .joined = (void *)(uintptr_t)joined, .apart = apart};
    parallel(ceil_div(rows, j.rows_of_item), clamp_threads(threads), joint_item, &j);
    return TG_OK;
}

int tg_cat(int dtype, int64_t rows, int64_t x_columns, int64_t y_columns, const void *x, const void *y, void *out,
           int threads)
{
    return join(dtype, rows, x_columns, y_columns, x, y, out, 0, threads);
}

int tg_cat_backward(int dtype, int64_t rows, int64_t x_columns, int64_t y_columns, const void *gout, void *gx, void *gy,
                    int threads)
{
    return join(dtype, rows, x_columns, y_columns, gx, gy, gout, 1, threads);
}
