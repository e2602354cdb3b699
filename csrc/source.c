/* How convolutions read their images; source.h says what each function is for. */
#include <string.h>
#include "source.h"

/* --- planning ------------------------------------------------------------------------------------------- */

void plan_taps(const tg_conv_shape *s, tap *taps)
{
    for (int64_t t = 0; t < kept_taps(s); t++)
        taps[t] = (tap){t / s->kw * s->dil_h - s->pad_h, t % s->kw * s->dil_w - s->pad_w, t};
}

void plan_box(source *s, int64_t rows, int64_t columns, const tap *taps, int64_t count)
{
    int64_t bottom = INT64_MIN, right = INT64_MIN;
    s->top = s->left = INT64_MAX;
    s->rows = rows;
    s->columns = columns;
    for (int64_t t = 0; t < count; t++) {
        s->top = min64(s->top, taps[t].dy);
        s->left = min64(s->left, taps[t].dx);
        bottom = max64(bottom, taps[t].dy);
        right = max64(right, taps[t].dx);
    }
    if (!count)
        s->top = s->left = bottom = right = 0;
    s->span_y = bottom - s->top + 1;
    s->span_x = right - s->left + 1;
    s->in_place = !s->relu && s->top >= 0 && s->left >= 0 && (s->rows - 1) * s->step_y + bottom < s->h
        && (s->columns - 1) * s->step_x + right < s->w;
}

void plan_regions(source *s, int64_t bytes, int64_t enough, int64_t panels)
{
    int64_t width = s->in_place ? s->w : (s->columns - 1) * s->step_x + s->span_x;
    int64_t line = max64(1, width * s->channels * s->size);
    s->band = max64(1, (bytes / line - s->span_y) / s->step_y + 1);
    s->images = 1;
    if (s->band >= s->rows) {
        s->band = s->rows;
        s->images = min64(bytes / (line * ((s->rows - 1) * s->step_y + s->span_y)),
                          PIXELS / max64(1, s->rows * s->columns));
        s->images = max64(1, min64(s->images, ceil_div(s->n * panels, enough)));
    }
    s->groups = ceil_div(s->n, s->images);
    s->bands = ceil_div(s->rows, s->band);
    s->row = width * s->channels;
    s->image = (s->in_place ? s->h : (s->band - 1) * s->step_y + s->span_y) * s->row;
}

/* Taps that are neighbors in the source make one run; one that is longer than DEPTH is cut. */
int64_t plan_runs(const source *s, const tap *taps, int64_t count, run *runs)
{
    int64_t n = 0;
    for (int64_t t = 0, next; t < count; t = next) {
        for (next = t + 1; next < count && taps[next].dy == taps[t].dy
             && taps[next].dx == taps[next - 1].dx + 1; next++)
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

int64_t most_runs(int64_t taps, int64_t channels) { return taps * ceil_div(channels, DEPTH) + taps; }

/* --- reading the source --------------------------------------------------------------------------------- */

region region_of(const source *s, int64_t i)
{
    region r = {i / s->bands * s->images, 0, i % s->bands * s->band, 0};
    r.images = min64(s->images, s->n - r.n0);
    r.rows = min64(s->band, s->rows - r.row0);
    return r;
}

/* Row y of image n, with the box's margin on both sides: zeros outside of the image. */
static void copy_row(const source *s, int64_t n, int64_t y, char *to)
{
    int64_t pixel = s->channels * s->size, width = s->row / max64(1, s->channels);
    int64_t x0 = min64(width, max64(0, -s->left)), x1 = max64(x0, min64(width, s->w - s->left));
    if (y < 0 || y >= s->h)
        x0 = x1 = width;
    memset(to, 0, (size_t)(x0 * pixel));
    const char *from = s->data + ((n * s->h + y) * s->w + x0 + s->left) * pixel;
    if (x1 > x0 && s->relu)
        s->relu(from, to + x0 * pixel, (x1 - x0) * s->channels);
    else if (x1 > x0)
        memcpy(to + x0 * pixel, from, (size_t)((x1 - x0) * pixel));
    memset(to + x1 * pixel, 0, (size_t)((width - x1) * pixel));
}

const char *read_source(const source *s, region r, char *copy)
{
    int64_t y0 = r.row0 * s->step_y + s->top;
    if (s->in_place)
        return s->data + ((r.n0 * s->h + y0) * s->w + s->left) * s->channels * s->size;
    for (int64_t i = 0; i < r.images; i++)
        for (int64_t y = 0; y < (r.rows - 1) * s->step_y + s->span_y; y++)
            copy_row(s, r.n0 + i, y0 + y, copy + (i * s->image + y * s->row) * s->size);
    return copy;
}

/* A little ahead in the region itself if it is read in place; if not, the one that this thread will probably copy
 * next. */
int64_t next_source(const source *s, region r, int threads, const char **ahead)
{
    int64_t line = s->w * s->channels * s->size, lines = s->bands > 1 ? r.rows * s->step_y : r.images * s->h;
    *ahead = s->data + (r.n0 * s->h + r.row0 * s->step_y) * line;
    *ahead += s->in_place ? AHEAD : threads * lines * line;
    return lines * line;
}

int64_t source_copy_bytes(const source *s)
{
    return s->in_place ? 0 : round_up(s->images * s->image * s->size, ALIGNMENT);
}

void list_pixels(int64_t *at, int64_t images, int64_t rows, int64_t columns, int64_t image, int64_t row,
                 int64_t column)
{
    for (int64_t i = 0; i < images; i++)
        for (int64_t j = 0; j < rows; j++)
            for (int64_t k = 0; k < columns; k++)
                *at++ = i * image + j * row + k * column;
}
