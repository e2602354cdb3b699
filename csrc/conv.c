/* Convolution: y = x * w, and its two derivatives, on NHWC images and HWIO weights (tinygen.h has the formula).
 *
 * In NHWC the taps of one kernel row meet one contiguous run of the image: taps x channels numbers, and so do the rows
 * of w that belong to them. A convolution is then a product of pixels with w, run by run, without im2col; a raster mask
 * only shortens the runs. Images are copied with a border of zeros, a part that fits the L2 cache at a time, or
 * used in place if no tap leaves them.
 *
 *   conv2d              one product: pixels (oh, ow), taps in raster order, B = w
 *   conv_transpose2d    one product for each phase (y mod stride_h, x mod stride_w) of the large image: such pixels all
 *                       meet the same taps, and step by 1 through the small image; B = w transposed
 *   conv2d_weight       the sum over pixels of outer products: the same runs, pixels along the sum
 *
 * Both products are a `correlation` below: items (a group of images or a band of rows) that are computed in any order. */
#include <string.h>
#include "tile.h"

enum {
    SOURCE_BYTES = 256 << 10,       /* of the source that an item reads: a quarter of the L2 cache */
    DEPTH = 512,                    /* rows of B that pixels run through at a time */
    LINE = 64, AHEAD = 12 << 10,    /* a cache line; how far ahead of their use to fetch pixels that are read in place */
    SMALL = 1 << 15,                /* elements that are not worth a second thread */
    LARGE = 1 << 20,                /* bytes of a gw that has no private copies */
    FEW = 1 << 10, DIRECT = 128,    /* pixels that aren't worth private copies; that aren't worth packing w */
    LIMIT = 1 << 30
};

typedef struct { int64_t dy, dx, weight; } tap;         /* from pixel to source; which (i, j) of w */

typedef struct {
    int64_t rows, columns, target;                      /* pixels; the first one's offset in the output */
    int64_t taps, first_tap, depth, packed;             /* B has depth = taps * channels rows, from offset packed */
    int64_t runs, first_run;
} phase;

/* The source's part in a correlation: how its pixels are read, in place or from a padded copy. */
typedef struct {
    const char *data;
    int64_t size, n, h, w, channels;                    /* size: of an element */
    int64_t step_y, step_x, top, left, span_y, span_x;  /* pixel steps; the box of taps from (top, left) */
    int64_t rows, columns;                              /* of pixels, the most that a phase has */
    int in_place;
    int64_t images, band, groups, bands;                /* an item: so many images, so many rows; items of each kind */
    int64_t row, image;                                 /* strides of what is read, in elements */
} source;

typedef struct {
    source s;
    const tile_kernels *k;
    const tg_conv_shape *shape;
    int transposed, threads;
    int flat, scatter;                                  /* conv_transpose2d's other ways, see plan_flat */
    int64_t columns, panels, splits;                    /* of B; splits: items that share a source's panels */
    int64_t ldb;                                        /* w is used in place with this stride, 0: packed */
    int64_t phases, taps;                               /* taps of all phases, at most the kept ones */
    phase *phase;
    tap *tap;
    run *run;
    const char *weight;
    char *packed, *bias, *output, *copies;
    int64_t copy_bytes;
    int64_t out_image, out_row, out_column;
} correlation;

/* --- shapes and masks ------------------------------------------------------------------------------------------- */

static int64_t product_of(const int64_t *sizes, int count)
{
    int64_t all = 1;
    for (int i = 0; i < count; i++)
        if (__builtin_mul_overflow(all, sizes[i], &all) || all > INT64_MAX / 64)
            return -1;
    return all;
}

static int valid(int dtype, const tg_conv_shape *s)
{
    const int64_t sizes[] = {s->n, s->h, s->w, s->ci, s->oh, s->ow, s->co};
    const int64_t steps[] = {s->kh, s->kw, s->stride_h, s->stride_w, s->dil_h, s->dil_w, s->groups};
    for (int i = 0; i < 7; i++)
        if (sizes[i] < 0 || sizes[i] > LIMIT || steps[i] < 1 || steps[i] > LIMIT)
            return 0;
    if (!valid_dtype(dtype) || s->pad_h < -LIMIT || s->pad_w < -LIMIT || s->pad_h > LIMIT || s->pad_w > LIMIT)
        return 0;
    if (s->mask < TG_MASK_NONE || s->mask > TG_MASK_B || s->ci % s->groups || s->co % s->groups)
        return 0;
    int64_t height = s->h + s->oh * s->stride_h + s->kh * s->dil_h + s->pad_h, channels = 1 + max64(s->ci, s->co);
    int64_t width = s->w + s->ow * s->stride_w + s->kw * s->dil_w + s->pad_w;
    return product_of((int64_t[]){1 + s->n, height, width, channels}, 4) > 0
        && product_of((int64_t[]){s->kh, s->kw, 1 + s->ci, 1 + s->co}, 4) > 0;
}

static int64_t centre(const tg_conv_shape *s) { return s->kh / 2 * s->kw + s->kw / 2; }

/* How many taps take part, in raster order. */
static int64_t kept_taps(const tg_conv_shape *s)
{
    if (s->mask == TG_MASK_NONE)
        return s->kh * s->kw;
    return centre(s) + !(s->mask == TG_MASK_A && s->groups == 1);
}

/* The first output channel that sees input channel c at this tap. */
static int64_t first_output(const tg_conv_shape *s, int64_t weight, int64_t c)
{
    if (s->mask == TG_MASK_NONE || weight != centre(s))
        return 0;
    return (c / (s->ci / s->groups) + (s->mask == TG_MASK_A)) * (s->co / s->groups);
}

static int64_t round_up(int64_t n, int64_t to) { return ceil_div(n, to) * to; }

/* --- planning --------------------------------------------------------------------------------------------------- */

static void plan_taps(const tg_conv_shape *s, tap *taps)
{
    for (int64_t t = 0; t < kept_taps(s); t++)
        taps[t] = (tap){t / s->kw * s->dil_h - s->pad_h, t % s->kw * s->dil_w - s->pad_w, t};
}

/* conv2d has one phase with every tap. Taps come in ascending order of (dy, dx), here and in the phases below. */
static void plan_forward(correlation *c)
{
    c->phases = 1;
    c->taps = kept_taps(c->shape);
    c->phase[0] = (phase){.rows = c->shape->oh, .columns = c->shape->ow, .taps = c->taps};
    plan_taps(c->shape, c->tap);
}

/* x[i] gets y[p] w[k] where i = p * stride + k * dil - pad: the phase i = r + q * stride has the taps k that make
 * (r + pad - k * dil) / stride whole, and this is p - q. */
static void plan_transposed(correlation *c)
{
    const tg_conv_shape *s = c->shape;
    int64_t taps = 0;
    c->phases = 0;
    for (int64_t ry = 0; ry < min64(s->stride_h, s->h); ry++)
        for (int64_t rx = 0; rx < min64(s->stride_w, s->w); rx++) {
            phase *p = &c->phase[c->phases++];
            *p = (phase){.rows = ceil_div(s->h - ry, s->stride_h), .columns = ceil_div(s->w - rx, s->stride_w),
                         .target = (ry * s->w + rx) * s->ci, .first_tap = taps};
            for (int64_t t = kept_taps(s) - 1; t >= 0; t--) {
                int64_t dy = ry + s->pad_h - t / s->kw * s->dil_h, dx = rx + s->pad_w - t % s->kw * s->dil_w;
                if (dy % s->stride_h == 0 && dx % s->stride_w == 0)
                    c->tap[taps++] = (tap){dy / s->stride_h, dx / s->stride_w, t};
            }
            p->taps = taps - p->first_tap;
        }
    c->taps = taps;
}

/* Where a phase would leave most of a vector's lanes idle (few channels) or most taps outside (a 1 x 1 map), all taps
 * are columns of one product instead, t[p, (k, c)] = sum over o of y[p, o] w[k, c, o]. For a 1 x 1 map that meets the
 * whole kernel this is x itself; otherwise it is scattered: x[p * stride + k * dil - pad, c] += t[p, (k, c)]. */
static void plan_flat(correlation *c)
{
    c->phases = c->taps = 1;
    c->phase[0] = (phase){.rows = c->shape->oh, .columns = c->shape->ow, .taps = 1};
    c->tap[0] = (tap){0};
}

static void choose_flat(correlation *c)
{
    const tg_conv_shape *s = c->shape;
    int whole = s->oh == 1 && s->ow == 1 && s->h == s->kh && s->w == s->kw && !s->pad_h && !s->pad_w
        && s->dil_h == 1 && s->dil_w == 1 && s->mask == TG_MASK_NONE;
    c->scatter = !whole && s->ci <= c->k->vector / 4 && kept_taps(s) > 2;
    c->flat = whole || c->scatter;
    if (!c->flat)
        return;
    c->columns = kept_taps(s) * s->ci;
    c->out_column = c->columns;
    c->out_row = s->ow * c->columns;
    c->out_image = s->oh * c->out_row;
}

/* The box of source pixels that all taps of all phases touch, and whether any of them leaves the image. */
static void plan_box(source *s, const phase *phases, int64_t count, const tap *taps)
{
    int64_t bottom = INT64_MIN, right = INT64_MIN, all = 0;
    s->top = s->left = INT64_MAX;
    s->rows = s->columns = 0;
    for (int64_t i = 0; i < count; i++) {
        all += phases[i].taps;
        s->rows = max64(s->rows, phases[i].rows);
        s->columns = max64(s->columns, phases[i].columns);
    }
    for (int64_t t = 0; t < all; t++) {
        s->top = min64(s->top, taps[t].dy);
        s->left = min64(s->left, taps[t].dx);
        bottom = max64(bottom, taps[t].dy);
        right = max64(right, taps[t].dx);
    }
    if (!all)
        s->top = s->left = bottom = right = 0;
    s->span_y = bottom - s->top + 1;
    s->span_x = right - s->left + 1;
    s->in_place = s->top >= 0 && s->left >= 0 && (s->rows - 1) * s->step_y + bottom < s->h
        && (s->columns - 1) * s->step_x + right < s->w;
}

/* Cut the work into items that fit the cache, but with `panels` each at least `enough` if there is that much. */
static void plan_items(source *s, int64_t bytes, int64_t enough, int64_t panels)
{
    int64_t width = s->in_place ? s->w : (s->columns - 1) * s->step_x + s->span_x;
    int64_t line = max64(1, width * s->channels * s->size);
    s->band = max64(1, (bytes / line - s->span_y) / s->step_y + 1);
    s->images = 1;
    if (s->band >= s->rows) {
        s->band = s->rows;
        s->images = bytes / (line * ((s->rows - 1) * s->step_y + s->span_y));
        s->images = max64(1, min64(s->images, ceil_div(s->n * panels, enough)));
    }
    s->groups = ceil_div(s->n, s->images);
    s->bands = ceil_div(s->rows, s->band);
    s->row = width * s->channels;
    s->image = (s->in_place ? s->h : (s->band - 1) * s->step_y + s->span_y) * s->row;
}

/* Taps that are neighbours in the source make one run; a long one is cut, so that DEPTH bounds a block of B. */
static int64_t plan_runs(const source *s, const tap *taps, int64_t count, run *runs)
{
    int64_t n = 0;
    for (int64_t t = 0, next; t < count; t = next) {
        for (next = t + 1; next < count && taps[next].dy == taps[t].dy && taps[next].dx == taps[next - 1].dx + 1; next++)
            ;
        int64_t a = (taps[t].dy - s->top) * s->row + (taps[t].dx - s->left) * s->channels;
        int64_t left = (next - t) * s->channels;
        for (int64_t pieces = ceil_div(left, DEPTH), len; pieces > 0; pieces--, a += len, left -= len) {
            len = ceil_div(left, pieces);
            runs[n++] = (run){a, len};
        }
    }
    return n;
}

static int64_t most_runs(int64_t taps, int64_t channels) { return taps * ceil_div(channels, DEPTH) + taps; }

/* --- reading the source ----------------------------------------------------------------------------------------- */

typedef struct { int64_t n0, images, row0, rows; } region;

static region region_of(const source *s, int64_t i)
{
    region r = {i / s->bands * s->images, 0, i % s->bands * s->band, 0};
    r.images = min64(s->images, s->n - r.n0);
    r.rows = min64(s->band, s->rows - r.row0);
    return r;
}

static void copy_row(const source *s, int64_t n, int64_t y, char *to)
{
    int64_t pixel = s->channels * s->size, width = s->row / max64(1, s->channels);
    int64_t x0 = min64(width, max64(0, -s->left)), x1 = max64(x0, min64(width, s->w - s->left));
    if (y < 0 || y >= s->h)
        x0 = x1 = width;
    memset(to, 0, (size_t)(x0 * pixel));
    if (x1 > x0)
        memcpy(to + x0 * pixel, s->data + ((n * s->h + y) * s->w + x0 + s->left) * pixel, (size_t)((x1 - x0) * pixel));
    memset(to + x1 * pixel, 0, (size_t)((width - x1) * pixel));
}

/* The region's source, its first tap at its first pixel: in place, or copied with zeros around it. */
static const char *read_source(const source *s, region r, char *copy)
{
    int64_t y0 = r.row0 * s->step_y + s->top;
    if (s->in_place)
        return s->data + ((r.n0 * s->h + y0) * s->w + s->left) * s->channels * s->size;
    for (int64_t i = 0; i < r.images; i++)
        for (int64_t y = 0; y < (r.rows - 1) * s->step_y + s->span_y; y++)
            copy_row(s, r.n0 + i, y0 + y, copy + (i * s->image + y * s->row) * s->size);
    return copy;
}

/* What to fetch into the cache while a region is computed, and how much: a little ahead in the region itself if it is
 * read in place, the one that this thread will probably copy next if not. */
static int64_t next_source(const source *s, region r, int threads, const char **ahead)
{
    int64_t line = s->w * s->channels * s->size, lines = s->bands > 1 ? r.rows * s->step_y : r.images * s->h;
    *ahead = s->data + (r.n0 * s->h + r.row0 * s->step_y) * line + (s->in_place ? AHEAD : threads * lines * line);
    return lines * line;
}

static int64_t source_copy_bytes(const source *s)
{
    return s->in_place ? 0 : round_up(s->images * s->image * s->size, ALIGNMENT);
}

/* --- the products ----------------------------------------------------------------------------------------------- */

/* Steps through a region's pixels in order: offsets into source and output, in elements. */
typedef struct { int64_t a, c, column, row; } cursor;

static inline void advance(cursor *p, const correlation *c, const phase *f, int64_t rows)
{
    p->a += c->s.step_x * c->s.channels;
    p->c += c->out_column;
    if (++p->column < f->columns)
        return;
    p->column = 0;
    p->a += c->s.step_y * c->s.row - f->columns * c->s.step_x * c->s.channels;
    p->c += c->out_row - f->columns * c->out_column;
    if (++p->row < rows)
        return;
    p->row = 0;
    p->a += c->s.image - rows * c->s.step_y * c->s.row;
    p->c += c->out_image - rows * c->out_row;
}

/* One block of B against all pixels of the region; meanwhile the lines from `ahead` are fetched, `bytes` a pixel. */
static void multiply_block(const correlation *c, const phase *f, const product *p, int64_t pixels, int64_t rows,
                           const char *a, char *out, int add, const char *ahead, int64_t bytes)
{
    int vectors = (int)ceil_div(p->n, c->k->vector);
    int64_t tiles = ceil_div(pixels, c->k->product_rows[vectors]);
    cursor at = {0};
    for (int64_t done = 0, m; done < pixels; done += m, tiles--) {
        const void *from[TILE_ROWS];
        void *to[TILE_ROWS];
        m = ceil_div(pixels - done, tiles);
        for (int64_t line = done * bytes; line < (done + m) * bytes; line += LINE)
            __builtin_prefetch(ahead + line);
        for (int64_t i = 0; i < m; i++) {
            from[i] = a + at.a * c->s.size;
            to[i] = out + at.c * c->s.size;
            advance(&at, c, f, rows);
        }
        c->k->product[vectors][m](p, from, add ? (const void *const *)to : NULL, to);
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
    int add = 0;
    do {                                        /* also with no run at all: then the output is the bias */
        product p = {.runs = c->run + first, .ldb = ld, .n = n, .b = b,
                     .bias = c->bias && !c->scatter ? c->bias + column * size : NULL};
        for (depth = 0; first < last && (!depth || depth + c->run[first].len <= DEPTH); first++, p.count++)
            depth += c->run[first].len;
        multiply_block(c, f, &p, pixels, rows, a, out + (f->target + column) * size, add, ahead, add ? 0 : ceil_div(bytes, pixels));
        b += depth * ld * size;
        add = 1;
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

/* count pixels of `bytes` bytes, each a copy of the given one, or 0. */
static void fill(char *to, const char *pixel, int64_t count, int64_t bytes)
{
    if (!pixel)
        memset(to, 0, (size_t)(count * bytes));
    for (int64_t i = 0; pixel && i < count; i++)
        memcpy(to + i * bytes, pixel, (size_t)bytes);
}

/* x += the taps' columns of t, for the region's pixels. */
static void scatter(const correlation *c, region r, const char *t, char *x)
{
    const tg_conv_shape *s = c->shape;
    int64_t size = c->s.size;
    for (int64_t i = 0; i < r.images; i++)
        for (int64_t p = 0; p < r.rows; p++, t += s->ow * c->columns * size)
            for (int64_t k = 0; k < kept_taps(s); k++) {
                int64_t y = (r.row0 + p) * s->stride_h + k / s->kw * s->dil_h - s->pad_h;
                int64_t left = k % s->kw * s->dil_w - s->pad_w;          /* x[left + q * stride] for the pixels q */
                int64_t q0 = left < 0 ? ceil_div(-left, s->stride_w) : 0;
                int64_t q1 = left < s->w ? min64(s->ow, (s->w - 1 - left) / s->stride_w + 1) : 0;
                if (y >= 0 && y < s->h && q0 < q1)
                    c->k->add_steps(t + (q0 * c->columns + k * s->ci) * size, c->columns,
                                    x + (((r.n0 + i) * s->h + y) * s->w + left + q0 * s->stride_w) * s->ci * size,
                                    s->stride_w * s->ci, q1 - q0, s->ci);
            }
}

/* Whole images, since the pixels of neighbouring bands meet. */
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
        const char *ahead, *y = read_source(&c->s, r, NULL);
        int64_t bytes = next_source(&c->s, r, c->threads, &ahead);
        for (int64_t panel = 0; panel < c->panels; panel++, bytes = 0)
            multiply_phase(c, c->phase, r, y, t, panel, ahead, bytes);
        scatter(c, r, t, x);
    }
}

/* B's panel for one tap of a phase; masked-out entries are 0. Item = (phase's tap, panel). */
static void pack_item(void *context, int64_t item, int slot)
{
    const correlation *c = context;
    const tg_conv_shape *s = c->shape;
    int64_t t = item / c->panels, f = 0, column = item % c->panels * c->k->panel, size = c->s.size;
    int64_t n = min64(c->k->panel, c->columns - column), ld = round_up(n, c->k->vector), weight = c->tap[t].weight;
    (void)slot;
    while (t >= c->phase[f].first_tap + c->phase[f].taps)
        f++;
    int64_t row0 = (t - c->phase[f].first_tap) * c->s.channels;
    char *to = c->packed + (c->phase[f].packed + c->phase[f].depth * column + row0 * ld) * size;
    const char *from = c->weight + weight * s->ci * s->co * size;
    if (ld > n || s->mask)
        memset(to, 0, (size_t)(c->s.channels * ld * size));
    if (!c->transposed)
        for (int64_t k = 0; k < s->ci; k++) {
            int64_t o = max64(first_output(s, weight, k), column);
            if (o < column + n)
                memcpy(to + (k * ld + o - column) * size, from + (k * s->co + o) * size, (size_t)((column + n - o) * size));
        }
    else if (!s->mask || (!c->flat && weight != centre(s)))
        c->k->transpose(from + column * s->co * size, s->co, to, ld, n, s->co);
    else
        for (int64_t k = column; k < column + n; k++) {
            int64_t o = first_output(s, weight + k / s->ci, k % s->ci);
            c->k->transpose(from + (k * s->co + o) * size, s->co, to + (o * ld + k - column) * size, ld, 1, s->co - o);
        }
}

static int64_t plan_packing(correlation *c)
{
    int64_t elements = 0, runs = 0;
    for (int64_t i = 0; i < c->phases; i++) {
        phase *f = &c->phase[i];
        f->depth = f->taps * c->s.channels;
        f->packed = elements;
        f->first_run = runs;
        f->runs = plan_runs(&c->s, c->tap + f->first_tap, f->taps, c->run + runs);
        runs += f->runs;
        elements += f->depth * round_up(c->columns, c->k->vector);
    }
    return elements;
}

static int correlate(correlation *c, const void *bias, int threads)
{
    const tg_conv_shape *s = c->shape;
    int64_t taps = kept_taps(s), size = c->s.size;
    plan lists = {0}, data = {0};
    size_t tap_at = reserve(&lists, 1 + taps, sizeof(tap));
    size_t run_at = reserve(&lists, most_runs(1 + taps, c->s.channels), sizeof(run));
    size_t phase_at = reserve(&lists, 1 + min64(s->stride_h, s->h) * min64(s->stride_w, s->w), sizeof(phase));
    char *memory = scratch(LISTS, &lists);
    if (!memory)
        return TG_NO_MEMORY;
    c->tap = (tap *)(memory + tap_at);
    c->run = (run *)(memory + run_at);
    c->phase = (phase *)(memory + phase_at);
    (c->flat ? plan_flat : c->transposed ? plan_transposed : plan_forward)(c);
    c->panels = ceil_div(c->columns, c->k->panel);
    plan_box(&c->s, c->phase, c->phases, c->tap);
    int64_t bytes = c->scatter ? SOURCE_BYTES * c->s.channels / max64(c->s.channels, c->columns) : SOURCE_BYTES;
    plan_items(&c->s, bytes, 4 * threads, c->scatter ? 1 : c->panels);
    int64_t items = c->scatter ? c->s.groups : c->s.groups * c->s.bands, elements = plan_packing(c);
    c->splits = c->scatter ? 1 : max64(1, min64(c->panels, 4 * threads / items));
    c->copy_bytes = c->scatter ? round_up(c->s.images * c->s.band * c->out_row * size, ALIGNMENT) : source_copy_bytes(&c->s);
    c->threads = threads;
    size_t packed_at = reserve(&data, c->ldb ? 0 : elements, (size_t)size), bias_at = reserve(&data, c->panels * c->k->panel, (size_t)size);
    size_t copies_at = reserve(&data, c->copy_bytes, (size_t)threads);
    if (!(memory = scratch(DATA, &data)))
        return TG_NO_MEMORY;
    c->packed = memory + packed_at;
    c->copies = memory + copies_at;
    if (bias) {
        int64_t channels = c->transposed ? s->ci : s->co;
        c->bias = memset(memory + bias_at, 0, (size_t)(c->panels * c->k->panel * size));
        fill(c->bias, bias, c->columns / channels, channels * size);
    }
    if (c->ldb)
        c->packed = (char *)(uintptr_t)c->weight;
    else
        parallel(c->taps * c->panels, elements > SMALL ? threads : 1, pack_item, c);
    parallel(items * c->splits, threads, c->scatter ? scatter_item : correlate_item, c);
    release_scratch();
    return TG_OK;
}

int tg_conv2d(int dtype, const tg_conv_shape *s, const void *x, const void *w, const void *bias, void *y, int threads)
{
    if (!valid(dtype, s))
        return TG_BAD_ARGUMENT;
    if (!s->n || !s->oh || !s->ow || !s->co)
        return TG_OK;
    correlation c = {.shape = s, .k = tiles(dtype), .weight = w, .output = y, .columns = s->co,
                     .out_column = s->co, .out_row = s->ow * s->co, .out_image = s->oh * s->ow * s->co};
    c.s = (source){.data = x, .size = element_size(dtype), .n = s->n, .h = s->h, .w = s->w, .channels = s->ci,
                   .step_y = s->stride_h, .step_x = s->stride_w};
    if (s->n * s->oh * s->ow <= DIRECT && s->co % c.k->vector == 0 && (s->mask == TG_MASK_NONE || s->groups == 1))
        c.ldb = s->co;
    return correlate(&c, bias, clamp_threads(threads));
}

int tg_conv_transpose2d(int dtype, const tg_conv_shape *s, const void *y, const void *w, const void *bias, void *x,
                        int threads)
{
    if (!valid(dtype, s))
        return TG_BAD_ARGUMENT;
    if (!s->n || !s->h || !s->w || !s->ci)
        return TG_OK;
    correlation c = {.shape = s, .k = tiles(dtype), .weight = w, .output = x, .columns = s->ci, .transposed = 1,
                     .out_column = s->stride_w * s->ci, .out_row = s->stride_h * s->w * s->ci,
                     .out_image = s->h * s->w * s->ci};
    c.s = (source){.data = y, .size = element_size(dtype), .n = s->n, .h = s->oh, .w = s->ow, .channels = s->co,
                   .step_y = 1, .step_x = 1};
    choose_flat(&c);
    return correlate(&c, bias, clamp_threads(threads));
}

/* --- the gradient to the weight --------------------------------------------------------------------------------- */

/* gw's rows (tap, c) in raster order are the runs, one after the other. Its sum over items of pixels (chunks) is cut in
 * two ways: a small gw has `parts` private copies, each the sum of a fixed range of chunks, added up in a fixed order
 * at the end; for a large one all chunks are read into memory first and `blocks` of gw's rows x panels are the items. */
typedef struct {
    source s;
    const tile_kernels *k;
    const tg_conv_shape *shape;
    const run *run;
    int64_t runs, depth, panels, chunks, parts, blocks, block_rows;
    const char *gy;
    char *gw, *gbias, *sums, *chunk;            /* chunk: the copies, one a slot or (blocks) one a chunk */
    int64_t sum_bytes, source_bytes, chunk_bytes;
    int packs;                                  /* gy's panels are packed */
} weight_sum;

static int64_t gy_offset(const weight_sum *g, region r)
{
    return (r.n0 * g->s.rows + r.row0) * g->s.columns * g->shape->co * g->s.size;
}

static int64_t pixels_of(const weight_sum *g, region r) { return r.images * r.rows * g->s.columns; }

/* gy of a region, one panel after the other, columns rounded up to whole vectors. */
static void pack_gy(const weight_sum *g, region r, char *to)
{
    int64_t size = g->s.size, co = g->shape->co, pixels = pixels_of(g, r);
    const char *from = g->gy + gy_offset(g, r);
    for (int64_t column = 0; column < co; column += g->k->panel) {
        int64_t n = min64(g->k->panel, co - column), ld = round_up(n, g->k->vector);
        for (int64_t q = 0; q < pixels; q++, to += ld * size) {
            memcpy(to, from + (q * co + column) * size, (size_t)(n * size));
            memset(to + n * size, 0, (size_t)((ld - n) * size));
        }
    }
}

/* Pixels at one constant step are one long row, which the tiles run through best. */
static void join(outer *o)
{
    if (o->columns == 1 || o->row_step == o->columns * o->column_step) {
        o->column_step = o->columns == 1 ? o->row_step : o->column_step;
        o->columns *= o->rows;
        o->rows = 1;
    }
    if (o->rows == 1 && (o->columns == 1 || o->image_step == o->columns * o->column_step)) {
        o->column_step = o->columns == 1 ? o->image_step : o->column_step;
        o->columns *= o->images;
        o->images = 1;
    }
}

/* What one chunk adds to gw's rows [row0, row1) of one panel. Meanwhile the next chunk's x and gy are fetched from
 * next[0] and next[1] on, fetch[0] and fetch[1] bytes, in turns from tile to tile. */
static void accumulate(const weight_sum *g, region r, const char *a, const char *b, int64_t panel, int64_t row0,
                       int64_t row1, char *gw, int add, const char *const *next_chunk, const int64_t *fetch)
{
    int64_t size = g->s.size, co = g->shape->co, column = panel * g->k->panel, n = min64(g->k->panel, co - column);
    int vectors = (int)ceil_div(n, g->k->vector);
    outer o = {.images = r.images, .rows = r.rows, .columns = g->s.columns, .image_step = g->s.image,
               .row_step = g->s.step_y * g->s.row, .column_step = g->s.step_x * g->s.channels,
               .ldb = g->packs ? vectors * g->k->vector : co, .ldc = co, .n = n, .add = add};
    o.b = b + (g->packs ? pixels_of(g, r) : 1) * column * size;
    join(&o);
    int64_t tile = 0, tiles = g->runs + g->depth / g->k->outer_rows[vectors], pixels = pixels_of(g, r);
    const run *u = g->run;
    for (int64_t row = 0, next; row < row1; row = next, u++) {
        next = row + u->len;
        int64_t first = max64(row, row0), left = min64(next, row1) - first, m;
        for (int64_t i = first, pieces = ceil_div(left, g->k->outer_rows[vectors]); left > 0; i += m, left -= m, tile++) {
            m = ceil_div(left, pieces--);
            if (fetch) {
                o.ahead_step = ceil_div(fetch[tile % 2], max64(1, tiles / 2) * pixels);
                o.ahead = next_chunk[tile % 2] + tile / 2 * pixels * o.ahead_step;
            }
            g->k->outer[vectors][m](&o, a + (u->a + i - row) * size, gw + (i * co + column) * size);
        }
    }
}

static void part_item(void *context, int64_t part, int slot)
{
    const weight_sum *g = context;
    int64_t first = part * g->chunks / g->parts, last = (part + 1) * g->chunks / g->parts, co = g->shape->co;
    char *copy = g->chunk + slot * g->chunk_bytes, *packed = copy + g->source_bytes;
    char *gw = g->parts > 1 ? g->sums + part * g->sum_bytes : g->gw, *gbias = g->sums + part * g->sum_bytes + g->depth * co * g->s.size;
    if (g->gbias)
        memset(gbias, 0, (size_t)(co * g->s.size));
    for (int64_t i = first; i < last; i++) {
        region r = region_of(&g->s, i);
        const char *a = read_source(&g->s, r, copy), *gy = g->gy + gy_offset(g, r), *next[2];
        int64_t fetch[2] = {next_source(&g->s, r, 1, &next[0]), pixels_of(g, r) * co * g->s.size};
        next[0] = g->s.in_place ? next[0] - AHEAD + fetch[0] : next[0];
        next[1] = gy + fetch[1];
        if (g->packs)
            pack_gy(g, r, packed);
        for (int64_t panel = 0; panel < g->panels; panel++)
            accumulate(g, r, a, g->packs ? packed : gy, panel, 0, g->depth, gw, i > first, next, panel ? NULL : fetch);
        if (g->gbias)
            g->k->add_rows(gy, gbias, pixels_of(g, r), co);
    }
}

static void read_item(void *context, int64_t i, int slot)
{
    const weight_sum *g = context;
    region r = region_of(&g->s, i);
    char *copy = g->chunk + i * g->chunk_bytes;
    (void)slot;
    read_source(&g->s, r, copy);
    pack_gy(g, r, copy + g->source_bytes);
}

static void block_item(void *context, int64_t item, int slot)
{
    const weight_sum *g = context;
    int64_t row0 = item / g->panels * g->block_rows, panel = item % g->panels;
    (void)slot;
    for (int64_t i = 0; i < g->chunks; i++) {
        region r = region_of(&g->s, i);
        char *copy = g->chunk + i * g->chunk_bytes;
        const char *a = g->s.in_place ? read_source(&g->s, r, NULL) : copy;
        accumulate(g, r, a, copy + g->source_bytes, panel, row0, min64(g->depth, row0 + g->block_rows), g->gw, i > 0, NULL, NULL);
    }
}

static void sum_item(void *context, int64_t item, int slot)
{
    const weight_sum *g = context;
    int64_t count = g->depth * g->shape->co, first = item * SMALL, n = min64(SMALL, count - first), size = g->s.size;
    (void)slot;
    memcpy(g->gw + first * size, g->sums + first * size, (size_t)(n * size));
    for (int64_t part = 1; part < g->parts; part++)
        g->k->add_rows(g->sums + part * g->sum_bytes + first * size, g->gw + first * size, 1, n);
}

/* Exact zeros where the mask is, and the bias. */
static void finish_weight(const weight_sum *g)
{
    const tg_conv_shape *s = g->shape;
    int64_t size = g->s.size, row = s->co * size;
    memset(g->gw + g->depth * row, 0, (size_t)((s->kh * s->kw * s->ci - g->depth) * row));
    if (s->mask && kept_taps(s) > centre(s))
        for (int64_t c = 0; c < s->ci; c++)
            memset(g->gw + (centre(s) * s->ci + c) * row, 0, (size_t)(first_output(s, centre(s), c) * size));
    if (!g->gbias)
        return;
    memset(g->gbias, 0, (size_t)row);
    if (g->blocks)
        g->k->add_rows(g->gy, g->gbias, s->n * s->oh * s->ow, s->co);
    else
        for (int64_t part = 0; part < g->parts; part++)
            g->k->add_rows(g->sums + part * g->sum_bytes + g->depth * row, g->gbias, 1, s->co);
}

static int sum_weight(weight_sum *g, int threads)
{
    const tg_conv_shape *s = g->shape;
    phase all = {.rows = s->oh, .columns = s->ow, .taps = kept_taps(s)};
    int64_t size = g->s.size, gw_bytes = all.taps * s->ci * s->co * size;
    plan lists = {0}, data = {0};
    size_t tap_at = reserve(&lists, all.taps, sizeof(tap)), run_at = reserve(&lists, most_runs(all.taps, s->ci), sizeof(run));
    char *memory = scratch(LISTS, &lists);
    if (!memory)
        return TG_NO_MEMORY;
    tap *taps = (tap *)(memory + tap_at);
    plan_taps(s, taps);
    plan_box(&g->s, &all, 1, taps);
    g->blocks = gw_bytes > LARGE || s->n * s->oh * s->ow < FEW;
    int64_t images = ceil_div(DEPTH / 2, s->oh * s->ow) * s->h * s->w * s->ci * size;
    plan_items(&g->s, g->blocks ? max64(SOURCE_BYTES, images) : SOURCE_BYTES, g->blocks ? 1 : 16, 1);
    g->run = (run *)(memory + run_at);
    g->runs = plan_runs(&g->s, taps, all.taps, (run *)(memory + run_at));
    g->depth = all.taps * s->ci;
    g->panels = ceil_div(s->co, g->k->panel);
    g->chunks = g->s.groups * g->s.bands;
    g->packs = s->co % g->k->vector || (s->co > g->k->panel && g->depth > 4 * g->k->panel);
    g->source_bytes = source_copy_bytes(&g->s);
    g->chunk_bytes = g->source_bytes + round_up(g->s.images * g->s.band * s->ow * round_up(s->co, g->k->vector) * size, ALIGNMENT);
    g->packs |= g->blocks != 0;
    g->parts = g->blocks ? 0 : min64(16, g->chunks);
    g->sum_bytes = round_up(gw_bytes + s->co * size, ALIGNMENT);
    size_t sums_at = reserve(&data, g->parts, (size_t)g->sum_bytes);
    size_t chunk_at = reserve(&data, g->blocks ? g->chunks : threads, (size_t)g->chunk_bytes);
    if (!(memory = scratch(DATA, &data)))
        return TG_NO_MEMORY;
    g->sums = memory + sums_at;
    g->chunk = memory + chunk_at;
    if (g->blocks) {
        g->block_rows = max64(24, min64(192, g->depth * g->panels / (4 * threads)));
        parallel(g->chunks, threads, read_item, g);
        parallel(ceil_div(g->depth, g->block_rows) * g->panels, threads, block_item, g);
    } else {
        parallel(g->parts, threads, part_item, g);
        if (g->parts > 1)
            parallel(ceil_div(g->depth * s->co, SMALL), threads, sum_item, g);
    }
    finish_weight(g);
    release_scratch();
    return TG_OK;
}

int tg_conv2d_weight(int dtype, const tg_conv_shape *s, const void *x, const void *gy, void *gw, void *gbias,
                     int threads)
{
    if (!valid(dtype, s))
        return TG_BAD_ARGUMENT;
    weight_sum g = {.shape = s, .k = tiles(dtype), .gy = gy, .gw = gw, .gbias = gbias};
    g.s = (source){.data = x, .size = element_size(dtype), .n = s->n, .h = s->h, .w = s->w, .channels = s->ci,
                   .step_y = s->stride_h, .step_x = s->stride_w};
    if (s->n && s->oh && s->ow && s->co)
        return sum_weight(&g, clamp_threads(threads));
    memset(gw, 0, (size_t)(s->kh * s->kw * s->ci * s->co * g.s.size));
    if (gbias)
        memset(gbias, 0, (size_t)(s->co * g.s.size));
    return TG_OK;
}
