/* LSTMs over images: one engine for sequences, the Row LSTM and the Diagonal BiLSTM (tinygen.h has the
 * formulas).
 *
 * A step is a set of pixels that don't depend on each other: a row or a diagonal. Diagonals need no skewed copy of the
 * image, since a pixel's place is a formula in (step, position). In a step, each tap adds a product to the gates: the
 * rows of h that it sees times its part of U. Then the cell runs while the gates are in the cache.
 *
 * A thread computes its images (or positions, if they don't see each other) through all steps, so no step waits for
 * another thread. */
#include <string.h>
#include "tile.h"

#define FAMILY "recurrent.inc"
#include "runtime/variants.h"

typedef void (*cell_kernel)(void *gates, const void *c_prev, void *c, void *h, int64_t units);
typedef void (*cell_backward_kernel)(const void *gates, const void *c_prev, const void *c, const void *gh,
                                     const void *gc, void *carry, void *gz, int64_t units);
static const cell_kernel cells[][2] = TABLE(cell);
static const cell_backward_kernel cells_backward[][2] = TABLE(cell_backward);

enum { DIRECT = 128 };                          /* pixels for which packing U doesn't pay */

typedef struct {
    const tg_lstm_shape *s;
    const tile_kernels *k;
    cell_kernel cell;
    cell_backward_kernel cell_backward;
    int64_t size, row, steps, positions;        /* bytes of a number, and of a pixel's h, a quarter of its gates' */
    int64_t images, width, groups, splits;      /* an item's images and positions; how many items of each */
    const char *u, *z, *h0, *c0, *gh, *gc, *zeros;
    char *gates, *c, *h, *gz, *gh0, *gc0, *packed, *workspace;
    int64_t ldb, tap_bytes, workspace_bytes;    /* ldb: the stride of U, used in place; 0: it is packed */
    int backward;
} engine;

typedef struct { int64_t n0, n1, p0, p1; } part;        /* one item's images and positions */

/* --- where things are ----------------------------------------------------------------------------------- */

static int inside(const engine *e, int64_t step, int64_t position)
{
    const tg_lstm_shape *s = e->s;
    int64_t along = s->diagonal ? step - position : step;
    return position >= 0 && position < e->positions && along >= 0 && along < (s->diagonal ? s->w : s->h);
}

static int64_t pixel(const engine *e, int64_t image, int64_t step, int64_t position)
{
    const tg_lstm_shape *s = e->s;
    int64_t first = image * s->h * s->w;
    if (!s->diagonal)
        return first + step * s->w + position;
    return first + position * s->w + (s->diagonal > 0 ? step - position : s->w - 1 - step + position);
}

/* From a position to the one whose previous state it sees through a tap. */
static int64_t offset(const engine *e, int64_t tap)
{
    return e->s->diagonal ? tap - 1 : tap - e->s->taps / 2;
}

/* The state (h or c) at a place; before the first step the initial one; NULL where it is 0. */
static const char *state(const engine *e, const char *array, const char *initial, int64_t image, int64_t step,
                         int64_t position)
{
    if (inside(e, step, position))
        return array + pixel(e, image, step, position) * e->row;
    int before = initial && step < 0 && position >= 0 && position < e->positions;
    return before ? initial + position * e->row : NULL;
}

static part part_of(const engine *e, int64_t item)
{
    part p = {item / e->splits * e->images, 0, item % e->splits * e->width, 0};
    p.n1 = min64(e->s->n, p.n0 + e->images);
    p.p1 = min64(e->positions, p.p0 + e->width);
    return p;
}

/* --- products ------------------------------------------------------------------------------------------- */

/* to[i] (columns) = start[i] + from[i] (depth) B for each row i: all rows with one panel of B, then with the next */
static void multiply(const engine *e, const char *b, int64_t ldb, int64_t depth, int64_t columns,
                     int64_t rows, const void *const *from, const void *const *start, void *const *to)
{
    run all = {0, depth};
    for (int64_t column = 0; column < columns; column += e->k->panel) {
        int64_t n = min64(e->k->panel, columns - column), vectors = ceil_div(n, e->k->vector);
        product p = {.runs = &all, .count = 1, .n = n, .ldb = ldb ? ldb : vectors * e->k->vector,
                     .b = b + column * (ldb ? 1 : depth) * e->size};
        int64_t tiles = ceil_div(rows, e->k->product_rows[vectors]);
        for (int64_t i = 0, m; i < rows; i += m) {
            const void *first[TILE_ROWS];
            void *target[TILE_ROWS];
            m = ceil_div(rows - i, tiles--);
            for (int64_t j = 0; j < m; j++) {
                first[j] = (const char *)start[i + j] + column * e->size;
                target[j] = (char *)to[i + j] + column * e->size;
            }
            e->k->product[vectors][m](&p, from + i, first, target);
        }
    }
}

/* B (depth, columns) = a matrix, or its transpose, in panels. */
static void pack(const engine *e, const char *from, int transposed, int64_t depth, int64_t columns, char *to)
{
    if (!transposed) {
        e->k->pack(from, columns, to, depth, columns);
        return;
    }
    for (int64_t column = 0; column < columns; column += e->k->panel) {
        int64_t n = min64(e->k->panel, columns - column), ld = round_up(n, e->k->vector);
        if (ld > n)
            memset(to, 0, (size_t)(depth * ld * e->size));
        e->k->transpose(from + column * depth * e->size, depth, to, ld, n, depth);
        to += depth * ld * e->size;
    }
}

static void pack_tap(void *context, int64_t tap, int slot)
{
    const engine *e = context;
    int64_t units = e->s->units;
    const char *u = e->u + tap * units * 4 * e->row;
    (void)slot;
    if (e->backward)
        pack(e, u, 1, 4 * units, units, e->packed + tap * e->tap_bytes);
    else
        pack(e, u, 0, units, 4 * units, e->packed + tap * e->tap_bytes);
}

/* --- steps ---------------------------------------------------------------------------------------------- */

typedef struct { int64_t image, position; } place;

/* A thread's own memory: the places of a step, and for each of them the rows of a product; forward the gates, unless
 * the caller keeps them; backward dh and dc. */
typedef struct {
    place *at;
    const void **from, **start;
    void **to;
    char *gates, *dh, *carry;
} workspace;

static workspace workspace_of(const engine *e, int slot)
{
    int64_t rows = e->images * e->width;
    char *p = e->workspace + slot * e->workspace_bytes;
    workspace w = {.at = (place *)p, .from = (const void **)(p + rows * 16),
                   .start = (const void **)(p + rows * 24),
                   .to = (void **)(p + rows * 32)};
    w.gates = w.dh = p + ceil_div(rows * 40, ALIGNMENT) * ALIGNMENT;
    w.carry = w.dh + rows * e->row;
    return w;
}

static int64_t places(const engine *e, part p, int64_t step, place *at)
{
    int64_t rows = 0;
    for (int64_t i = p.n0; i < p.n1; i++)
        for (int64_t j = p.p0; j < p.p1; j++)
            if (step < 0 || inside(e, step, j))
                at[rows++] = (place){i, j};
    return rows;
}

static void forward_item(void *context, int64_t item, int slot)
{
    const engine *e = context;
    part p = part_of(e, item);
    workspace w = workspace_of(e, slot);
    for (int64_t step = 0; step < e->steps; step++) {
        int64_t rows = places(e, p, step, w.at);
        for (int64_t r = 0; r < rows; r++) {
            int64_t at = pixel(e, w.at[r].image, step, w.at[r].position) * 4 * e->row;
            w.to[r] = e->gates ? e->gates + at : w.gates + r * 4 * e->row;
            w.start[r] = e->z + at;
            if (!step && !e->h0 && w.to[r] != w.start[r])
                memcpy(w.to[r], w.start[r], (size_t)(4 * e->row));
        }
        for (int64_t tap = 0; tap < e->s->taps && (step || e->h0); tap++) {
            for (int64_t r = 0; r < rows; r++) {
                const char *h = state(e, e->h, e->h0, w.at[r].image, step - 1,
                                      w.at[r].position + offset(e, tap));
                w.from[r] = h ? h : e->zeros;
            }
            multiply(e, e->packed + tap * e->tap_bytes, e->ldb, e->s->units, 4 * e->s->units, rows, w.from,
                     tap ? (const void *const *)w.to : w.start, w.to);
        }
        for (int64_t r = 0; r < rows; r++) {
            int64_t at = pixel(e, w.at[r].image, step, w.at[r].position) * e->row;
            const char *before = state(e, e->c, e->c0, w.at[r].image, step - 1, w.at[r].position);
            e->cell(w.to[r], before, e->c + at, e->h + at, e->s->units);
        }
    }
}

/* dh of a step's places: h's own gradient, and through U that of the next step's gates. */
static void gather_dh(const engine *e, workspace w, int64_t rows, int64_t step)
{
    for (int64_t r = 0; r < rows; r++) {
        w.start[r] = w.to[r] = w.dh + r * e->row;
        if (e->gh && step >= 0)
            memcpy(w.to[r], e->gh + pixel(e, w.at[r].image, step, w.at[r].position) * e->row, (size_t)e->row);
        else
            memset(w.to[r], 0, (size_t)e->row);
    }
    for (int64_t tap = 0; tap < e->s->taps && step + 1 < e->steps; tap++) {
        for (int64_t r = 0; r < rows; r++) {
            int64_t next = w.at[r].position - offset(e, tap), image = w.at[r].image;
            w.from[r] = e->zeros;
            if (inside(e, step + 1, next))
                w.from[r] = e->gz + pixel(e, image, step + 1, next) * 4 * e->row;
        }
        multiply(e, e->packed + tap * e->tap_bytes, 0, 4 * e->s->units, e->s->units, rows, w.from, w.start,
                 w.to);
    }
}

static void backward_item(void *context, int64_t item, int slot)
{
    const engine *e = context;
    part p = part_of(e, item);
    workspace w = workspace_of(e, slot);
    memset(w.carry, 0, (size_t)(e->images * e->width * e->row));
    for (int64_t step = e->steps - 1; step >= 0; step--) {
        int64_t rows = places(e, p, step, w.at);
        gather_dh(e, w, rows, step);
        for (int64_t r = 0; r < rows; r++) {
            int64_t image = w.at[r].image, position = w.at[r].position,
                    at = pixel(e, image, step, position) * e->row;
            char *carry = w.carry + ((image - p.n0) * e->width + position - p.p0) * e->row;
            const char *before = state(e, e->c, e->c0, image, step - 1, position);
            e->cell_backward(e->gates + 4 * at, before, e->c + at, w.dh + r * e->row,
                             e->gc ? e->gc + at : NULL, carry, e->gz + 4 * at, e->s->units);
        }
    }
    if (!e->gh0)
        return;
    int64_t rows = places(e, p, -1, w.at);
    gather_dh(e, w, rows, -1);
    memcpy(e->gh0 + p.p0 * e->row, w.dh, (size_t)(rows * e->row));
    memcpy(e->gc0 + p.p0 * e->row, w.carry, (size_t)(rows * e->row));
}

/* --- the calls ------------------------------------------------------------------------------------------ */

/* Items of whole images, or of positions where these don't see each other. */
static void plan_parts(engine *e, int threads)
{
    const tg_lstm_shape *s = e->s;
    int alone = !s->diagonal && s->taps == 1;
    e->steps = s->diagonal ? s->h + s->w - 1 : s->h;
    e->positions = s->diagonal ? s->h : s->w;
    int64_t items = e->positions >= 64 * threads ? 2 * threads : threads;
    e->images = alone ? 1 : max64(1, ceil_div(s->n, 4 * threads));
    e->width = alone ? max64(1, ceil_div(e->positions, items)) : e->positions;
    e->groups = ceil_div(s->n, e->images);
    e->splits = ceil_div(e->positions, e->width);
}

static int run_engine(engine *e, int dtype, int threads)
{
    const tg_lstm_shape *s = e->s;
    plan p = {0};
    e->size = element_size(dtype);
    e->row = s->units * e->size;
    e->k = tiles(dtype);
    e->cell = cells[tg_isa()][dtype];
    e->cell_backward = cells_backward[tg_isa()][dtype];
    plan_parts(e, threads);
    int64_t columns = e->backward ? s->units : 4 * s->units, depth = 5 * s->units - columns,
            rows = e->images * e->width;
    int direct = !e->backward && s->n * s->h * s->w <= DIRECT && columns % e->k->vector == 0;
    e->ldb = direct ? columns : 0;
    e->tap_bytes = depth * (direct ? columns : ceil_div(columns, e->k->vector) * e->k->vector) * e->size;
    int64_t own = e->backward ? 2 * e->row : e->gates ? 0 : 4 * e->row;
    e->workspace_bytes = ceil_div(rows * (40 + own), ALIGNMENT) * ALIGNMENT + 2 * ALIGNMENT;
    size_t zeros_at = reserve(&p, 4, (size_t)e->row);
    size_t packed_at = reserve(&p, direct ? 0 : s->taps, (size_t)e->tap_bytes);
    size_t work_at = reserve(&p, threads, (size_t)e->workspace_bytes);
    char *memory = scratch(DATA, &p);
    if (!memory)
        return TG_NO_MEMORY;
    e->zeros = memset(memory + zeros_at, 0, (size_t)(4 * e->row));
    e->packed = memory + packed_at;
    e->workspace = memory + work_at;
    if (direct)
        e->packed = (char *)(uintptr_t)e->u;
    else
        parallel(s->taps, threads, pack_tap, e);
    parallel(e->groups * e->splits, threads, e->backward ? backward_item : forward_item, e);
    release_scratch();
    return TG_OK;
}

int tg_lstm(int dtype, const tg_lstm_shape *s, const void *z, const void *u, const void *h0, const void *c0,
            void *gates, void *c, void *h, int threads)
{
    if (!lstm_valid(dtype, s, h0 || c0) || !h0 != !c0)
        return TG_BAD_ARGUMENT;
    if (!s->n || !s->h || !s->w || !s->units)
        return TG_OK;
    engine e = {.s = s, .u = u, .z = z, .h0 = h0, .c0 = c0, .gates = gates, .c = c, .h = h};
    return run_engine(&e, dtype, clamp_threads(threads));
}

int tg_lstm_backward(int dtype, const tg_lstm_shape *s, const void *u, const void *c0, const void *gates,
                     const void *c, const void *gh, const void *gc, void *gz, void *gh0, void *gc0,
                     int threads)
{
    if (!lstm_valid(dtype, s, gh0 || gc0 || c0) || !gh0 != !gc0)
        return TG_BAD_ARGUMENT;
    if (!s->n || !s->h || !s->w || !s->units) {
        size_t bytes = (size_t)(s->w * s->units * element_size(dtype));
        if (gh0) {                              /* no step: nothing depends on the state before */
            memset(gh0, 0, bytes);
            memset(gc0, 0, bytes);
        }
        return TG_OK;
    }
    engine e = {.s = s, .u = u, .c0 = c0, .gates = (char *)(uintptr_t)gates, .c = (char *)(uintptr_t)c,
                .gh = gh, .gc = gc, .gz = gz, .gh0 = gh0, .gc0 = gc0, .backward = 1};
    return run_engine(&e, dtype, clamp_threads(threads));
}

/* U's gradient is that of a convolution's weight: h is the image, one step behind gz. */
int tg_lstm_weight(int dtype, const tg_lstm_shape *s, const void *h, const void *gz, void *gu, int threads)
{
    if (!lstm_valid(dtype, s, 0))
        return TG_BAD_ARGUMENT;
    tg_conv_shape f = {.n = s->n, .h = s->h, .w = s->w, .ci = s->units, .oh = s->h, .ow = s->w,
                       .co = 4 * s->units, .kh = 1, .kw = s->taps, .stride_h = 1, .stride_w = 1, .pad_h = 1,
                       .pad_w = s->taps / 2, .dil_h = 1, .dil_w = 1, .groups = 1};
    if (s->n == 1 && s->taps == 1 && s->h) {    /* all steps are one image of one row, but for the last and the first */
        f.h = f.oh = s->h - 1;
        f.pad_h = 0;
        gz = (const char *)gz + s->w * 4 * s->units * element_size(dtype);
    }
    if (!s->diagonal)
        return tg_conv2d_weight(dtype, &f, 0, h, gz, gu, NULL, threads);
    f.kw = 1;
    f.pad_w = 0;
    int error = tg_conv2d_weight(dtype, &f, 0, h, gz, gu, NULL, threads);
    f.pad_h = 0;
    f.pad_w = s->diagonal;
    char *second = (char *)gu + s->units * 4 * s->units * element_size(dtype);
    return error ? error : tg_conv2d_weight(dtype, &f, 0, h, gz, second, NULL, threads);
}
