/* Which sizes the kernels accept, in C and CUDA alike: those of which no count of bytes overflows. The checks don't
 * overflow either. */
#ifndef TINYGEN_VALID_H
#define TINYGEN_VALID_H
#include <stdint.h>
#include "tinygen.h"

enum { MOST = 1 << 30 };                    /* that a single size may be */

static inline int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t element_size(int dtype) { return dtype == TG_F32 ? 4 : 8; }
static inline int valid_dtype(int dtype) { return dtype == TG_F32 || dtype == TG_F64; }

/* Whether the product of sizes >= 0 is a number of elements whose bytes can be counted. */
static inline int countable(const int64_t *sizes, int count)
{
    int64_t all = 1;
    for (int i = 0; i < count; i++)
        if (__builtin_mul_overflow(all, sizes[i], &all) || all > INT64_MAX / 1024)
            return 0;
    return 1;
}

/* Whether two arrays of so many bytes share any. */
static inline int overlap(const void *a, const void *b, int64_t bytes)
{
    uintptr_t x = (uintptr_t)a, y = (uintptr_t)b;
    return (x < y ? y - x : x - y) < (uintptr_t)bytes;
}

static inline int rows_valid(int dtype, int64_t rows, int64_t columns)
{
    const int64_t sizes[] = {rows, columns};
    return valid_dtype(dtype) && rows >= 0 && columns >= 0 && countable(sizes, 2);
}

/* Of n images of so many pixels, whose channels fall into groups. None of a group is empty. */
static inline int groups_valid(int dtype, int64_t n, int64_t pixels, int64_t channels, int64_t groups)
{
    const int64_t sizes[] = {n, pixels, channels};
    if (!valid_dtype(dtype) || n < 0 || pixels < 1 || channels < 1 || groups < 1 || channels % groups)
        return 0;
    return countable(sizes, 3) && countable(sizes + 1, 2);
}

/* Of n images of so many pixels, k of whose channels, from `start` on, are changed. */
static inline int coupling_valid(int dtype, int64_t n, int64_t pixels, int64_t channels, int64_t k, int64_t start)
{
    const int64_t sizes[] = {n, pixels, channels}, fewer[] = {pixels, channels}, changed[] = {n, pixels, 2, k};
    if (!valid_dtype(dtype) || n < 0 || pixels < 0 || k < 0 || start < 0 || k > channels || start > channels - k)
        return 0;
    return countable(sizes, 3) && countable(fewer, 2) && countable(changed, 4);
}

static inline int attention_valid(int dtype, int64_t n, int64_t queries, int64_t keys, int64_t size, int64_t width)
{
    const int64_t sizes[] = {queries, keys, size, width};
    int64_t most = 1;
    for (int i = 0; i < 4; i++) {
        if (sizes[i] < 1 || sizes[i] > MOST)
            return 0;
        most = max64(most, sizes[i] + 16);
    }
    const int64_t all[] = {n, most, most};
    return valid_dtype(dtype) && n >= 0 && countable(all, 3) && countable(all + 1, 2);
}

static inline int conv_valid(int dtype, const tg_conv_shape *s)
{
    const int64_t sizes[] = {s->n, s->h, s->w, s->ci, s->oh, s->ow, s->co};
    const int64_t steps[] = {s->kh, s->kw, s->stride_h, s->stride_w, s->dil_h, s->dil_w, s->groups};
    for (int i = 0; i < 7; i++)
        if (sizes[i] < 0 || sizes[i] > MOST || steps[i] < 1 || steps[i] > MOST)
            return 0;
    if (!valid_dtype(dtype) || s->pad_h < -MOST || s->pad_w < -MOST || s->pad_h > MOST || s->pad_w > MOST)
        return 0;
    if (s->mask < TG_MASK_NONE || s->mask > TG_MASK_B || s->ci % s->groups || s->co % s->groups)
        return 0;
    int64_t height = s->h + s->oh * s->stride_h + s->kh * s->dil_h + max64(s->pad_h, -s->pad_h);
    int64_t width = s->w + s->ow * s->stride_w + s->kw * s->dil_w + max64(s->pad_w, -s->pad_w);
    const int64_t images[] = {1 + s->n, height, width, 1 + max64(s->ci, s->co)};
    const int64_t weight[] = {s->kh, s->kw, 1 + s->ci, 1 + s->co};
    return countable(images, 4) && countable(weight, 4);
}

/* initial: whether a state before the first row is given. */
static inline int lstm_valid(int dtype, const tg_lstm_shape *s, int initial)
{
    const int64_t sizes[] = {s->n, s->h, s->w, s->units};
    for (int i = 0; i < 4; i++)
        if (sizes[i] < 0 || sizes[i] > MOST)
            return 0;
    const int64_t all[] = {32, s->n + 1, s->h + 1, s->w + 1, s->units + 1};
    if (!valid_dtype(dtype) || !countable(all, 5) || s->diagonal < -1 || s->diagonal > 1 || s->units > MOST >> 8
        || s->taps > 1 << 10)
        return 0;
    return s->diagonal ? s->taps == 2 && !initial : s->taps > 0 && s->taps % 2 && (!initial || s->n == 1);
}

/* How many of an image's numbers give the distribution of one value; 0 if a sampler can't have these settings. */
static inline int64_t sampler_results(const tg_sampler *s)
{
    const int64_t k = s->mixtures, c = s->colors;
    if (k == 0)
        return max64(0, s->levels);
    return k > 0 && k <= 1 << 15 && c > 0 && c <= 1 << 8 && s->levels > 1 ? k * (1 + 2 * c + c * (c - 1) / 2) : 0;
}

#endif
