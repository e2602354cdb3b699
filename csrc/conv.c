/* Convolution and transposed convolution on NHWC images and HWIO weights (tinygen.h has the formula). The gradient to
 * the weight is conv_weight.c.
 *
 * Both are matrix products C = A B, without im2col: a row of A is the runs of the source (source.h) that a pixel of
 * the output meets, and B has the rows of w that belong to their taps.
 *
 *   conv2d              pixels (oh, ow), taps in raster order, B = w
 *   conv_transpose2d    one product for each phase (y mod stride_h, x mod stride_w) of the large image, whose
 *                       pixels all meet the same taps and step by 1 through the small image; B = w transposed
 *
 * B is packed into panels as wide as the widest register tile (tile.h), with 0 where w is masked. Threads share out the
 * regions of the source, and panels where there are few regions; an item is one of each, in any order. phases.c plans it.
 * Between many channels there are faster ways: for 3 x 3 taps, and 4 x 4 with a stride of 2, winograd.c; for small images,
 * taps.c. */
#include <string.h>
#include "matmul.h"
#include "phases.h"
#include "raster.h"
#include "taps.h"
#include "winograd.h"

enum {
    LINE = 64,
    DIRECT = 128,                   /* pixels for which packing w doesn't pay */
    OUTSIDE = 5, OUTSIDE_BACK = 10  /* percent of the products outside, from which taps.c is faster; transposed */
};

/* --- the products --------------------------------------------------------------------------------------- */

/* One block of B times all pixels of the region. Meanwhile memory from `ahead` on is fetched into the cache, `bytes`
 * for each pixel. */
static void multiply_block(const correlation *c, const phase *f, const product *p, int64_t pixels,
                           const char *a, char *out, int accumulate, const char *ahead, int64_t bytes)
{
    const int64_t *in_a = c->from + f->first_pixel, *in_c = c->to + f->first_pixel;
    int vectors = (int)ceil_div(p->n, c->k->vector);
    int64_t tiles = ceil_div(pixels, c->k->product_rows[vectors]);
    for (int64_t done = 0, m; done < pixels; done += m, in_a += m, in_c += m, tiles--) {
        const void *from[TILE_ROWS];
        void *to[TILE_ROWS];
        m = ceil_div(pixels - done, tiles);
        for (int64_t line = done * bytes; line < (done + m) * bytes; line += LINE)
            __builtin_prefetch(ahead + line);
        for (int64_t i = 0; i < m; i++) {
            from[i] = a + in_a[i] * c->s.size;
            to[i] = out + in_c[i] * c->s.size;
            for (int64_t line = 0; line < p->n * c->s.size; line += LINE) {     /* needed after the product */
                __builtin_prefetch((char *)to[i] + line, 1);
                if (p->positive)
                    __builtin_prefetch((char *)to[i] + p->positive + line);
                if (p->add)
                    __builtin_prefetch((char *)to[i] + p->add + line);
            }
        }
        c->k->product[vectors][m](p, from, accumulate ? (const void *const *)to : NULL, to);
    }
}

static void multiply_phase(const correlation *c, const phase *f, region r, const char *a, char *out,
                           int64_t panel, const char *ahead, int64_t bytes)
{
    int64_t size = c->s.size, column = panel * c->k->panel, rows = min64(r.rows, f->rows - r.row0);
    int64_t n = min64(c->k->panel, c->columns - column), ld = c->ldb ? c->ldb : round_up(n, c->k->vector);
    const char *b = c->packed + (c->ldb ? column : f->packed + f->depth * column) * size;
    int64_t pixels = r.images * rows * f->columns;
    int64_t first = f->first_run, last = first + f->runs, depth;
    int accumulate = 0;
    do {                                        /* also with no run at all: then the output is the bias */
        product p = {.runs = c->run + first, .ldb = ld, .n = c->scatter ? ld : n, .b = b,
                     .bias = c->bias && !c->scatter ? c->bias + column * size : NULL};
        for (depth = 0; first < last && (!depth || depth + c->run[first].len <= DEPTH); first++, p.count++)
            depth += c->run[first].len;
        p.positive = c->positive && first == last ? (intptr_t)c->positive - (intptr_t)c->output : 0;
        p.add = c->add && first == last ? (intptr_t)c->add - (intptr_t)c->output : 0;
        multiply_block(c, f, &p, pixels, a, out + (f->target + column) * size, accumulate, ahead,
                       accumulate ? 0 : ceil_div(bytes, pixels));
        b += depth * ld * size;
        accumulate = 1;
    } while (first < last);
}

static void correlate_item(void *context, int64_t item, int slot)
{
    const correlation *c = context;
    region r = region_of(&c->s, item / c->splits);
    int64_t split = item % c->splits;
    const char *a = read_source(&c->s, r, c->copies + slot * c->copy_bytes), *ahead;
    char *out = c->output + (r.n0 * c->out_image + r.row0 * c->out_row) * c->s.size;
    int64_t bytes = next_source(&c->s, r, c->threads, &ahead);
    for (int64_t panel = split * c->panels / c->splits; panel < (split + 1) * c->panels / c->splits; panel++)
        for (int64_t f = 0; f < c->phases; f++, bytes = 0)
            if (c->phase[f].rows > r.row0)
                multiply_phase(c, &c->phase[f], r, a, out, panel, ahead, bytes);
}

/* `count` pixels of `bytes` bytes, each a copy of the given one; 0 if that is NULL. */
static void fill(char *to, const char *pixel, int64_t count, int64_t bytes)
{
    int64_t all = count * bytes, filled = min64(bytes, all);
    if (!pixel) {
        memset(to, 0, (size_t)all);
        return;
    }
    memcpy(to, pixel, (size_t)filled);
    for (int64_t more; filled < all; filled += more) {      /* what is there, once more: a copy a pixel costs a call each */
        more = min64(filled, all - filled);
        memcpy(to + filled, to, (size_t)more);
    }
}

/* x += the taps' columns of t, for the region's pixels. The padding is negative where tg_conv2d has turned the shape round:
 * then the first numbers of x are met by none. */
static void scatter(const correlation *c, region r, const char *t, char *sums, char *x)
{
    const tg_conv_shape *s = c->shape;
    int64_t size = c->s.size, row = row_of_sums(s), outside = max64(0, s->pad_w) * s->ci, x0 = max64(0, -s->pad_w);
    scattered all = {.pixels = s->ow, .ld = c->out_column, .channels = s->ci, .stride = s->stride_w, .apart = s->dil_w,
                     .row = row, .left = outside, .kept = min64((s->w - x0) * s->ci, row - outside)};
    for (int64_t i = 0; i < r.images; i++)
        for (int64_t p = 0; p < r.rows; p++, t += c->out_row * size)
            for (int64_t k = 0; k < kept_taps(s); k += s->kw) {
                int64_t y = (r.row0 + p) * s->stride_h + k / s->kw * s->dil_h - s->pad_h;
                if (y >= 0 && y < s->h)
                    c->k->scatter(&all, t + k * s->ci * size, min64(s->kw, kept_taps(s) - k), sums,
                                  x + (((r.n0 + i) * s->h + y) * s->w + x0) * s->ci * size);
            }
}

/* An item is whole images, since the pixels of neighboring bands add to the same numbers. */
static void scatter_item(void *context, int64_t item, int slot)
{
    const correlation *c = context;
    const tg_conv_shape *s = c->shape;
    int64_t image = s->h * s->w * s->ci * c->s.size, n0 = item * c->s.images;
    char *t = c->copies + slot * c->copy_bytes, *x = c->output;
    for (int64_t i = n0; i < min64(c->s.n, n0 + c->s.images); i++)
        fill(x + i * image, c->bias, s->h * s->w, s->ci * c->s.size);
    for (int64_t band = 0; band < c->s.bands; band++) {
        region r = region_of(&c->s, item * c->s.bands + band);
        const char *ahead, *y = read_source(&c->s, r, t + c->flat_bytes);
        int64_t bytes = next_source(&c->s, r, c->threads, &ahead);
        for (int64_t panel = 0; panel < c->panels; panel++, bytes = 0)
            multiply_phase(c, c->phase, r, y, t, panel, ahead, bytes);
        scatter(c, r, t, t + c->sums_at, x);
    }
}

/* One panel of B for one tap of a phase, with 0 where w is masked. An item is (tap, panel). */
static void pack_item(void *context, int64_t item, int slot)
{
    const correlation *c = context;
    const tg_conv_shape *s = c->shape;
    int64_t t = item / c->panels, f = 0, column = item % c->panels * c->k->panel, size = c->s.size;
    int64_t n = min64(c->k->panel, c->columns - column), ld = round_up(n, c->k->vector);
    int64_t weight = c->tap[t].weight;
    (void)slot;
    while (t >= c->phase[f].first_tap + c->phase[f].taps)
        f++;
    int64_t row0 = (t - c->phase[f].first_tap) * c->s.channels;
    char *to = c->packed + (c->phase[f].packed + c->phase[f].depth * column + row0 * ld) * size;
    const char *from = c->weight + weight * s->ci * s->co * size;
    if (ld > n || s->mask)
        memset(to, 0, (size_t)(c->s.channels * ld * size));
    if (c->reversed)
        for (int64_t k = 0; k < s->co; k++)
            for (int64_t i = 0; i < n; i++) {
                int64_t last = kept_taps(s) - 1 - (column + i) / s->ci;
                memcpy(to + (k * ld + i) * size,
                       from + ((last * s->co + k) * s->ci + (column + i) % s->ci) * size, (size_t)size);
            }
    else if (!c->transposed)
        for (int64_t k = 0; k < s->ci; k++) {
            int64_t o = max64(first_output(s, weight, k), column);
            if (o < column + n)
                memcpy(to + (k * ld + o - column) * size, from + (k * s->co + o) * size,
                       (size_t)((column + n - o) * size));
        }
    else if (!s->mask || (!c->flat && weight != center(s)))
        c->k->transpose(from + column * s->co * size, s->co, to, ld, n, s->co);
    else
        for (int64_t k = column; k < column + n; k++) {
            int64_t o = first_output(s, weight + k / s->ci, k % s->ci);
            c->k->transpose(from + (k * s->co + o) * size, s->co, to + (o * ld + k - column) * size, ld, 1,
                            s->co - o);
        }
}

static int correlate(correlation *c, const void *bias)
{
    if (plan_correlation(c))
        return TG_NO_MEMORY;
    plan_lists(c);
    int64_t elements = plan_packing(c), size = c->s.size, padded = c->panels * c->k->panel;
    int64_t channels = c->transposed ? c->shape->ci : c->shape->co;
    plan data = {0};
    size_t from_at = reserve(&data, c->pixels, sizeof *c->from), to_at = reserve(&data, c->pixels, sizeof *c->to);
    size_t packed_at = reserve(&data, c->ldb ? 0 : elements, (size_t)size);
    size_t bias_at = reserve(&data, padded, (size_t)size);
    size_t copies_at = reserve(&data, c->copy_bytes, (size_t)c->threads);
    char *memory = scratch(DATA, &data);
    if (!memory)
        return TG_NO_MEMORY;
    c->from = (int64_t *)(memory + from_at);
    c->to = (int64_t *)(memory + to_at);
    fill_lists(c);
    c->packed = memory + packed_at;
    c->copies = memory + copies_at;
    if (bias) {
        c->bias = memset(memory + bias_at, 0, (size_t)(padded * size));
        fill(c->bias, bias, c->columns / channels, channels * size);
    }
    if (c->ldb)
        c->packed = (char *)(uintptr_t)c->weight;
    else
        parallel(c->taps * c->panels, elements > SMALL ? c->threads : 1, pack_item, c);
    parallel(c->items, c->threads, c->scatter ? scatter_item : correlate_item, c);
    release_scratch();
    return TG_OK;
}

/* With a stride of 1 conv2d is conv_transpose2d with the taps in reverse, for outputs in place of inputs: so it, too, has
 * a better way for few of them. */
static tg_conv_shape reversed(const tg_conv_shape *s)
{
    return (tg_conv_shape){.n = s->n, .h = s->oh, .w = s->ow, .ci = s->co, .oh = s->h, .ow = s->w, .co = s->ci,
                           .kh = s->kh, .kw = s->kw, .stride_h = 1, .stride_w = 1, .dil_h = s->dil_h,
                           .dil_w = s->dil_w, .pad_h = (s->kh - 1) * s->dil_h - s->pad_h,
                           .pad_w = (s->kw - 1) * s->dil_w - s->pad_w, .mask = TG_MASK_NONE, .groups = 1};
}

int tg_conv2d(int dtype, const tg_conv_shape *s, int relu, const void *x, const void *w, const void *bias,
              const void *add, void *y, int threads)
{
    if (!conv_valid(dtype, s))
        return TG_BAD_ARGUMENT;
    if (!s->n || !s->oh || !s->ow || !s->co)
        return TG_OK;
    if (is_pointwise(s)) {
        matmul p = {.m = s->n * s->h * s->w, .n = s->co, .k = s->ci, .a = x, .b = w, .relu = relu, .bias = bias,
                    .add = add, .c = y};
        return multiply_matrices(dtype, &p, clamp_threads(threads));
    }
    if (winograd_suits(s))
        return winograd_conv2d(dtype, s, relu, x, w, bias, add, y, clamp_threads(threads));
    if (raster_suits(s))
        return raster_conv2d(dtype, s, relu, x, w, bias, add, y, clamp_threads(threads));
    if (!relu && !add && taps_suit(s, OUTSIDE))
        return taps_conv2d(dtype, s, x, w, bias, y, clamp_threads(threads));
    tg_conv_shape back = reversed(s);
    correlation c = {.shape = s, .k = tiles(dtype), .threads = clamp_threads(threads), .weight = w,
                     .add = add, .output = y, .columns = s->co, .out_column = s->co,
                     .out_row = s->ow * s->co, .out_image = s->oh * s->ow * s->co};
    c.s = (source){.data = x, .size = element_size(dtype), .n = s->n, .h = s->h, .w = s->w, .channels = s->ci,
                   .step_y = s->stride_h, .step_x = s->stride_w, .relu = relu ? c.k->relu : NULL};
    if (!add && s->mask == TG_MASK_NONE && s->stride_h == 1 && s->stride_w == 1 && few(&c, &back)) {
        c.shape = &back;
        c.reversed = c.transposed = c.scatter = 1;
        plan_columns(&c);
    } else if (s->n * s->oh * s->ow <= DIRECT && s->co % c.k->vector == 0
        && (s->mask == TG_MASK_NONE || s->groups == 1))
        c.ldb = s->co;
    return correlate(&c, bias);
}

int tg_conv_transpose2d(int dtype, const tg_conv_shape *s, const void *y, const void *w, const void *bias,
                        const void *positive, void *x, int threads)
{
    if (!conv_valid(dtype, s))
        return TG_BAD_ARGUMENT;
    if (!s->n || !s->h || !s->w || !s->ci)
        return TG_OK;
    if (is_pointwise(s)) {
        matmul p = {.m = s->n * s->h * s->w, .n = s->ci, .k = s->co, .a = y, .b = w, .b_transposed = 1,
                    .bias = bias, .positive = positive, .c = x};
        return multiply_matrices(dtype, &p, clamp_threads(threads));
    }
    if (winograd_suits_transpose(dtype, s))
        return winograd_transpose(dtype, s, y, w, bias, positive, x, clamp_threads(threads));
    if (raster_suits(s))
        return raster_transpose(dtype, s, y, w, bias, positive, x, clamp_threads(threads));
    if (!positive && taps_suit(s, OUTSIDE_BACK))
        return taps_transpose(dtype, s, y, w, bias, x, clamp_threads(threads));
    correlation c = {.shape = s, .k = tiles(dtype), .threads = clamp_threads(threads), .weight = w, .positive = positive,
                     .output = x, .columns = s->ci, .transposed = 1, .out_column = s->stride_w * s->ci,
                     .out_row = s->stride_h * s->w * s->ci, .out_image = s->h * s->w * s->ci};
    c.s = (source){.data = y, .size = element_size(dtype), .n = s->n, .h = s->oh, .w = s->ow,
                   .channels = s->co, .step_y = 1, .step_x = 1};
    if (!positive)
        choose_flat(&c);
    return correlate(&c, bias);
}
