/* LSTMs over images: sequences, the Row LSTM and the Diagonal BiLSTM (tinygen.h has the formulas).
 *
 * A step is a row, or a diagonal: pixels that don't depend on each other. Each step is one product: the states
 * that its pixels see with U, or backward the gradients of the gates that saw them with U's transpose; the
 * cell runs in the product's epilogue, on the sums in registers. */
#include "tile.cuh"

namespace {

/* The pixels of a step: `count` of each image, with y from `first` on, or x if a step is a row. */
struct places {
    int images, h, w, units, taps, diagonal;
    int step, first, count;

    struct place { int image, y, x; };
    __device__ __forceinline__ place at(int i) const
    {
        int image = i / count, j = first + i - image * count;
        if (!diagonal)
            return {image, step, j};
        return {image, j, diagonal > 0 ? step - j : w - 1 - step + j};
    }
    /* Where a tap looks from there. */
    __device__ __forceinline__ place offset(int tap) const
    {
        if (diagonal)
            return {0, tap - 1, tap ? -diagonal : 0};
        return {0, -1, tap - taps / 2};
    }
    __device__ __forceinline__ int64_t pixel(const place &p) const { return ((int64_t)p.image * h + p.y) * w + p.x; }
};

/* What pixels see through (tap, channel): the states before them, or backward (direction -1) the gradients of the
 * pixels that saw them. */
template <class real>
struct neighbors {
    enum { along_depth = 1 };
    places where;
    int direction, channels, pixels;
    const real *data, *initial;                         /* initial: above the first row, or NULL */
    typedef places::place line;
    struct point { int y, x, channel; };

    __device__ __forceinline__ line line_of(int i) const
    {
        line l = where.at(i);
        l.x = i < pixels ? l.x : INT32_MIN / 2;         /* outside */
        return l;
    }
    __device__ __forceinline__ point point_of(int k) const
    {
        int tap = k / channels;
        places::place to = where.offset(tap);
        return {direction * to.y, tap < where.taps ? direction * to.x : INT32_MIN / 2, k - tap * channels};
    }
    template <int width>
    __device__ __forceinline__ pack<real, width> get(const line &l, const point &p) const
    {
        places::place to = {l.image, l.y + p.y, l.x + p.x};
        if (to.x < 0 || to.x >= where.w)
            return {};
        if (to.y >= 0 && to.y < where.h)
            return load<width>(data + where.pixel(to) * channels + p.channel);
        return initial && to.y == -1 ? load<width>(initial + (int64_t)to.x * channels + p.channel)
                                     : pack<real, width>{};
    }
};

/* U: depth (tap, unit), n (unit, gate), so that a thread has a unit's four gates. */
template <class real>
struct gate_columns {
    enum { along_depth = 0 };
    const real *u;
    int units, depth;
    struct line { int at; };
    typedef int point;
    __device__ __forceinline__ line line_of(int i) const { return {i < 4 * units ? i % 4 * units + i / 4 : -1}; }
    __device__ __forceinline__ point point_of(int k) const { return k; }
    template <int width>
    __device__ __forceinline__ pack<real, width> get(const line &l, const point &k) const
    {
        return l.at >= 0 && k < depth ? load<width>(u + (int64_t)k * 4 * units + l.at) : pack<real, width>{};
    }
};

/* U's transpose: depth (tap, gate, unit), n unit. */
template <class real>
struct gate_rows {
    enum { along_depth = 1 };
    const real *u;
    int units, taps;
    typedef int line;
    struct point { const real *u; };
    __device__ __forceinline__ line line_of(int i) const { return i; }
    __device__ __forceinline__ point point_of(int k) const
    {
        int tap = k / (4 * units);
        return {tap < taps ? u + (int64_t)tap * units * 4 * units + (k - tap * 4 * units) : NULL};
    }
    template <int width>
    __device__ __forceinline__ pack<real, width> get(const line &unit, const point &p) const
    {
        return unit < units && p.u ? load<width>(p.u + (int64_t)unit * 4 * units) : pack<real, width>{};
    }
};

/* The state c from which a pixel goes on. */
template <class real>
__device__ __forceinline__ real state_before(const places &s, places::place p, const real *c, const real *c0, int unit)
{
    bool first = s.diagonal ? (s.diagonal > 0 ? p.x == 0 : p.x == s.w - 1) : p.y == 0;
    if (first)
        return c0 ? c0[(int64_t)p.x * s.units + unit] : 0;
    places::place before = {p.image, p.y - !s.diagonal, p.x - s.diagonal};
    return c[s.pixel(before) * s.units + unit];
}

template <class real>
struct cell {
    places where;
    const real *z, *c0;
    real *gates, *c, *h;

    __device__ __forceinline__ void operator()(int row, int column, real *sums, int) const
    {
        places::place p = where.at(row);
        int64_t units = where.units, unit = column / 4, pixel = where.pixel(p);
        const real *a = z + pixel * 4 * units + unit;
        real *to = gates + pixel * 4 * units + unit;
        real i = sigmoid(sums[0] + a[0]), f = sigmoid(sums[1] + a[units]);
        real g = tanh(sums[2] + a[2 * units]), o = sigmoid(sums[3] + a[3 * units]);
        real state = f * state_before(where, p, c, c0, (int)unit) + i * g;
        if (gates) {
            to[0] = i;
            to[units] = f;
            to[2 * units] = g;
            to[3 * units] = o;
        }
        c[pixel * units + unit] = state;
        h[pixel * units + unit] = o * tanh(state);
    }
};

/* carry (images, w or, for diagonals, h, units): c's gradient from the step after to the one before */
template <class real>
struct cell_backward {
    places where;
    const real *c0, *gates, *c, *gh, *gc;
    real *carry, *gz, *gh0;

    __device__ __forceinline__ void one(places::place p, int unit, real dh) const
    {
        int64_t units = where.units, pixel = where.pixel(p), at = pixel * units + unit;
        const real *gate = gates + pixel * 4 * units + unit;
        real *to = gz + pixel * 4 * units + unit;
        real *passed = carry + (where.diagonal ? (int64_t)p.image * where.h + p.y
                                               : (int64_t)p.image * where.w + p.x) * units + unit;
        real i = gate[0], f = gate[units], g = gate[2 * units], o = gate[3 * units], t = tanh(c[at]);
        dh += gh ? gh[at] : 0;
        real dc = *passed + (gc ? gc[at] : 0) + dh * o * (1 - t * t);
        to[0] = dc * g * i * (1 - i);
        to[units] = dc * state_before(where, p, c, c0, unit) * f * (1 - f);
        to[2 * units] = dc * i * (1 - g * g);
        to[3 * units] = dh * t * o * (1 - o);
        *passed = dc * f;
    }

    __device__ __forceinline__ void operator()(int row, int column, real *sums, int) const
    {
        places::place p = where.at(row);
#pragma unroll
        for (int j = 0; j < COLUMNS; j++)
            if (column + j < where.units) {
                if (p.y < 0)
                    gh0[(int64_t)p.x * where.units + column + j] = sums[j];
                else
                    one(p, column + j, sums[j]);
            }
    }
};

/* --- on the host ---------------------------------------------------------------------------------------- */

int steps_of(const tg_lstm_shape *s) { return (int)(s->diagonal ? s->h + s->w - 1 : s->h); }

places places_of(const tg_lstm_shape *s, int step)
{
    int h = (int)s->h, w = (int)s->w, first = s->diagonal && step >= w ? step - w + 1 : 0;
    int count = s->diagonal ? (step < h ? step : h - 1) - first + 1 : w;
    return {(int)s->n, h, w, (int)s->units, (int)s->taps, (int)s->diagonal, step, first, count};
}

template <class real, int width>
int forward(const tg_lstm_shape *s, const void *z, const void *u, const void *h0, const void *c0, void *gates,
            void *c, void *h)
{
    for (int step = 0; step < steps_of(s); step++) {
        places where = places_of(s, step);
        int pixels = where.images * where.count, depth = step || h0 ? where.taps * where.units : 0;
        neighbors<real> a = {where, 1, where.units, pixels, (const real *)h, (const real *)h0};
        gate_columns<real> b = {(const real *)u, where.units, depth};
        cell<real> e = {where, (const real *)z, (const real *)c0, (real *)gates, (real *)c, (real *)h};
        int error = tiles<real, SMALL_TILE, SMALL_TILE, width, 1>(a, b, e, whole(pixels, 4 * where.units, depth));
        if (error)
            return error;
    }
    return TG_OK;
}

template <class real, int width>
int backward(const tg_lstm_shape *s, const void *u, const cell_backward<real> &cell)
{
    for (int step = steps_of(s) - 1; step >= (cell.gh0 ? -1 : 0); step--) {
        cell_backward<real> e = cell;
        e.where = places_of(s, step);
        int pixels = e.where.images * e.where.count, channels = 4 * e.where.units;
        int depth = step < steps_of(s) - 1 ? e.where.taps * channels : 0;
        neighbors<real> a = {e.where, -1, channels, pixels, e.gz, NULL};
        gate_rows<real> b = {(const real *)u, e.where.units, e.where.taps};
        int error = tiles<real, SMALL_TILE, SMALL_TILE, width, width>(a, b, e, whole(pixels, e.where.units, depth));
        if (error)
            return error;
    }
    return TG_OK;
}

bool lstm_fits(int dtype, const tg_lstm_shape *s, int initial)
{
    return lstm_valid(dtype, s, initial) && s->n * s->h * s->w < LIMIT && 4 * s->units * s->taps < LIMIT;
}

bool empty(const tg_lstm_shape *s) { return !s->n || !s->h || !s->w || !s->units; }

}

int tg_lstm(int dtype, const tg_lstm_shape *s, const void *z, const void *u, const void *h0, const void *c0,
            void *gates, void *c, void *h, int)
{
    if (!lstm_fits(dtype, s, h0 || c0) || !h0 != !c0)
        return TG_BAD_ARGUMENT;
    if (empty(s))
        return TG_OK;
    return typed(dtype, [&](auto zero) {
        typedef decltype(zero) real;
        bool wide = s->units % widest<real>() == 0 && aligned(h) && aligned(h0);
        return (wide ? forward<real, widest<real>()> : forward<real, 1>)(s, z, u, h0, c0, gates, c, h);
    });
}

int tg_lstm_backward(int dtype, const tg_lstm_shape *s, const void *u, const void *c0, const void *gates,
                     const void *c, const void *gh, const void *gc, void *gz, void *gh0, void *gc0, int)
{
    if (!lstm_fits(dtype, s, gh0 || gc0 || c0) || !gh0 != !gc0)
        return TG_BAD_ARGUMENT;
    int64_t size = s->units * element_size(dtype), carried = s->n * (s->diagonal ? s->h : s->w) * size;
    if (gh0) {                                          /* what stays if there is no step */
        cudaMemsetAsync(gh0, 0, (size_t)(s->w * size), cuda_stream());
        cudaMemsetAsync(gc0, 0, (size_t)(s->w * size), cuda_stream());
    }
    if (empty(s))
        return launched();
    scratch_memory own(gc0 ? 0 : carried);
    if (!own.p)
        return TG_NO_MEMORY;
    void *carry = gc0 ? gc0 : own.p;
    cudaMemsetAsync(carry, 0, (size_t)carried, cuda_stream());
    return typed(dtype, [&](auto zero) {
        typedef decltype(zero) real;
        cell_backward<real> e = {places_of(s, 0), (const real *)c0, (const real *)gates, (const real *)c,
                                 (const real *)gh, (const real *)gc, (real *)carry, (real *)gz, (real *)gh0};
        return (aligned(u) && aligned(gz) ? backward<real, widest<real>()> : backward<real, 1>)(s, u, e);
    });
}

/* U's gradient is that of a convolution's weight: h is the image, one step behind gz. */
int tg_lstm_weight(int dtype, const tg_lstm_shape *s, const void *h, const void *gz, void *gu, int)
{
    if (!lstm_fits(dtype, s, 0))
        return TG_BAD_ARGUMENT;
    tg_conv_shape f = {};
    f.n = s->n, f.h = f.oh = s->h, f.w = f.ow = s->w, f.ci = s->units, f.co = 4 * s->units;
    f.kh = f.kw = f.stride_h = f.stride_w = f.dil_h = f.dil_w = f.groups = f.pad_h = 1;
    if (!s->diagonal) {
        f.kw = s->taps;
        f.pad_w = s->taps / 2;
        return tg_conv2d_weight(dtype, &f, 0, h, gz, gu, NULL, 1);
    }
    int error = tg_conv2d_weight(dtype, &f, 0, h, gz, gu, NULL, 1);
    f.pad_h = 0;
    f.pad_w = s->diagonal;
    char *second = (char *)gu + s->units * 4 * s->units * element_size(dtype);
    return error ? error : tg_conv2d_weight(dtype, &f, 0, h, gz, second, NULL, 1);
}
