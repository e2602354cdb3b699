/* How convolutions are planned; phases.h says what each function is for. */
#include "phases.h"

/* --- the phases ----------------------------------------------------------------------------------------- */


/* conv2d has one phase with every tap. The taps of a phase ascend by (dy, dx), here and below. */
static void plan_forward(correlation *c)
{
    c->phases = 1;
    c->taps = kept_taps(c->shape);
    c->phase[0] = (phase){.rows = c->shape->oh, .columns = c->shape->ow, .taps = c->taps};
    plan_taps(c->shape, c->tap);
}

/* x[i] gets y[p] w[k] where i = p * stride + k * dil - pad: the phase i = r + q * stride has the taps k
 * that make (r + pad - k * dil) / stride whole, and this is p - q. */
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

/* With few channels a phase would leave most of a vector's lanes idle, and for a 1 x 1 map most of its taps would lie
 * outside. There all taps are columns of one product instead, t[p, (k, c)] = sum over o of y[p, o] w[k, c, o]. For a
 * 1 x 1 map that meets the whole kernel, t is x itself; otherwise it is scattered:
 * x[p * stride + k * dil - pad, c] += t[p, (k, c)]. */
static void plan_flat(correlation *c)
{
    c->phases = c->taps = 1;
    c->phase[0] = (phase){.rows = c->shape->oh, .columns = c->shape->ow, .taps = 1};
    c->tap[0] = (tap){0};
}

int few(const correlation *c, const tg_conv_shape *s)
{
    return s->oh && s->ow && s->ci <= c->k->vector / 2 && kept_taps(s) > 2;
}

int64_t row_of_sums(const tg_conv_shape *s)
{
    return ((s->ow - 1) * s->stride_w + (s->kw - 1) * s->dil_w + 1) * s->ci;
}

void plan_columns(correlation *c)
{
    const tg_conv_shape *s = c->shape;
    c->flat = 1;
    c->columns = kept_taps(s) * s->ci;
    c->out_column = c->scatter ? round_up(c->columns, c->k->vector) : c->columns;    /* t's rows are whole vectors */
    c->out_row = s->ow * c->out_column;
    c->out_image = s->oh * c->out_row;
}

void choose_flat(correlation *c)
{
    const tg_conv_shape *s = c->shape;
    int whole = s->oh == 1 && s->ow == 1 && s->h == s->kh && s->w == s->kw && !s->pad_h && !s->pad_w
        && s->dil_h == 1 && s->dil_w == 1 && s->mask == TG_MASK_NONE;
    c->scatter = !whole && few(c, s);
    if (whole || c->scatter)
        plan_columns(c);
}

/* --- their lists ---------------------------------------------------------------------------------------- */

static int64_t rows_of(const correlation *c, const phase *f) { return min64(c->s.band, f->rows); }

/* Phases of one size share their lists: there are at most two heights and two widths. */
void plan_lists(correlation *c)
{
    const phase *sizes[4];
    int found = 0, j;
    for (int64_t i = 0; i < c->phases; i++) {
        phase *f = &c->phase[i];
        for (j = 0; j < found; j++)
            if (rows_of(c, sizes[j]) == rows_of(c, f) && sizes[j]->columns == f->columns)
                break;
        f->first_pixel = j < found ? sizes[j]->first_pixel : c->pixels;
        if (j < found)
            continue;
        sizes[found++] = f;
        c->pixels += c->s.images * rows_of(c, f) * f->columns;
    }
}

int64_t plan_packing(correlation *c)
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

int plan_correlation(correlation *c)
{
    const tg_conv_shape *s = c->shape;
    int64_t taps = 1 + kept_taps(s), phases = 1;
    if (c->transposed && !c->flat)
        phases += min64(s->stride_h, s->h) * min64(s->stride_w, s->w);
    plan lists = {0};
    size_t tap_at = reserve(&lists, taps, sizeof(tap)), phase_at = reserve(&lists, phases, sizeof(phase));
    size_t run_at = reserve(&lists, most_runs(taps, c->s.channels), sizeof(run));
    char *memory = scratch(LISTS, &lists);
    if (!memory)
        return TG_NO_MEMORY;
    c->tap = (tap *)(memory + tap_at);
    c->run = (run *)(memory + run_at);
    c->phase = (phase *)(memory + phase_at);
    (c->flat ? plan_flat : c->transposed ? plan_transposed : plan_forward)(c);
    plan_box(&c->s, c->phase[0].rows, c->phase[0].columns, c->tap, c->taps);     /* the first phase is the largest */
    c->panels = ceil_div(c->columns, c->k->panel);
    if (c->scatter) {                           /* an item's t has to fit the cache, too */
        plan_regions(&c->s, SOURCE_BYTES * c->s.channels / max64(c->s.channels, c->out_column), 4 * c->threads, 1);
        c->items = c->s.groups;
        c->flat_bytes = round_up(c->s.images * c->s.band * c->out_row * c->s.size, ALIGNMENT);
        c->sums_at = c->flat_bytes + round_up(source_copy_bytes(&c->s), ALIGNMENT);
        c->copy_bytes = c->sums_at + round_up(row_of_sums(s) * c->s.size, ALIGNMENT);
        return TG_OK;
    }
    plan_regions(&c->s, SOURCE_BYTES, 4 * c->threads, c->panels);
    c->splits = max64(1, min64(c->panels, 4 * c->threads / (c->s.groups * c->s.bands)));
    c->items = c->s.groups * c->s.bands * c->splits;
    c->copy_bytes = source_copy_bytes(&c->s);
    return TG_OK;
}

void fill_lists(const correlation *c)
{
    int64_t filled = 0;
    for (const phase *f = c->phase; filled < c->pixels; f++)
        if (f->first_pixel == filled) {
            int64_t rows = rows_of(c, f);
            list_pixels(c->from + filled, c->s.images, rows, f->columns, c->s.image,
                        c->s.step_y * c->s.row, c->s.step_x * c->s.channels);
            list_pixels(c->to + filled, c->s.images, rows, f->columns, c->out_image, c->out_row, c->out_column);
            filled += c->s.images * rows * f->columns;
        }
}
