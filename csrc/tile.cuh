/* C = A B (m, n, depth) in tiles, wherever A and B are read from: convolutions and recurrences are made of it.
 *
 * A block computes `rows` x `columns` of C, a thread 4 or 8 rows of 4 columns of it in registers. Both
 * operands go through shared memory, 16 of the depth at a time, and while one such slice is multiplied, the
 * next one is on its way from global memory to registers.
 *
 * An operand is a struct with
 *     along_depth       whether neighbors in memory are neighbors along the depth; else along m or n
 *     line              what it knows of an index of m or n (line_of), made once for each thread
 *     point             what it knows of an index of the depth (point_of)
 *     get<width>        `width` neighbors from there on, 0 where there is nothing
 * and an epilogue says what becomes of 4 neighboring columns of a row: e(row, column, sums, split). The
 * depth may be cut into splits, each with its own sums, to keep a GPU busy where m and n are small.
 *
 * m, n and depth stay below LIMIT, so that indices fit an int; offsets into arrays don't have to. */
#ifndef TINYGEN_TILE_CUH
#define TINYGEN_TILE_CUH
#include "runtime/cuda.cuh"

enum { SLICE = 16, PAD = 4, COLUMNS = 4, LIMIT = MOST };

struct extent { int m, n, depth, split; };                  /* split: depth of each, a multiple of SLICE */

static inline extent whole(int64_t m, int64_t n, int64_t depth)
{
    return {(int)m, (int)n, (int)depth, (int)max64(1, ceil_of<int64_t>(depth, SLICE)) * SLICE};
}

/* A thread's share in moving one operand's slice: packs of `width`, from `line`s in steps. */
template <class real, class operand, int size, int width, int threads>
struct mover {
    enum {
        LANES = (operand::along_depth ? (int)SLICE : size) / width,
        LINES = operand::along_depth ? size : (int)SLICE,
        STEP = threads / LANES,
        COUNT = LINES / STEP
    };
    static_assert(threads % LANES == 0 && LINES % STEP == 0, "every thread moves as much");
    typename operand::line lines[operand::along_depth ? (int)COUNT : 1];
    pack<real, width> moved[COUNT];
    int lane, first;

    __device__ __forceinline__ mover(const operand &o, int start)
    {
        lane = (int)threadIdx.x % LANES * width;
        first = (int)threadIdx.x / LANES;
#pragma unroll
        for (int i = 0; i < (operand::along_depth ? (int)COUNT : 1); i++)
            lines[i] = o.line_of(start + (operand::along_depth ? first + i * STEP : lane));
    }

    __device__ __forceinline__ void fetch(const operand &o, int depth)
    {
        if constexpr (operand::along_depth) {
            typename operand::point point = o.point_of(depth + lane);
#pragma unroll
            for (int i = 0; i < COUNT; i++)
                moved[i] = o.template get<width>(lines[i], point);
        } else {
#pragma unroll
            for (int i = 0; i < COUNT; i++)
                moved[i] = o.template get<width>(lines[0], o.point_of(depth + first + i * STEP));
        }
    }

    __device__ __forceinline__ void put(real (&slice)[SLICE][size + PAD]) const
    {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            if constexpr (operand::along_depth) {
#pragma unroll
                for (int j = 0; j < width; j++)
                    slice[lane + j][first + i * STEP] = moved[i].v[j];
            } else
                store<width>(&slice[first + i * STEP][lane], moved[i]);
        }
    }
};

/* sums += the slices' product, for the thread's rows and columns from (row, column). */
template <class real, int own, int rows, int columns>
static __device__ __forceinline__ void multiply(const real (&a)[SLICE][rows + PAD],
                                                const real (&b)[SLICE][columns + PAD], int row, int column,
                                                real (&sums)[own][COLUMNS])
{
    const int width = widest<real>();
#pragma unroll 8
    for (int k = 0; k < SLICE; k++) {
        pack<real, width> x[own / width], y[COLUMNS / width];
#pragma unroll
        for (int i = 0; i < own; i += width)
            x[i / width] = load<width>(&a[k][row + i]);
#pragma unroll
        for (int j = 0; j < COLUMNS; j += width)
            y[j / width] = load<width>(&b[k][column + j]);
#pragma unroll
        for (int i = 0; i < own; i++)
#pragma unroll
            for (int j = 0; j < COLUMNS; j++)
                sums[i][j] += x[i / width].v[i % width] * y[j / width].v[j % width];
    }
}

template <int rows> __host__ __device__ constexpr int own_rows() { return rows >= 128 ? 8 : 4; }
template <int rows, int columns>
__host__ __device__ constexpr int threads_of() { return rows / own_rows<rows>() * columns / COLUMNS; }

template <class real, int rows, int columns, int width_a, int width_b, class left, class right, class epilogue>
__global__ void __launch_bounds__(threads_of<rows, columns>(), 2048 / threads_of<rows, columns>() / sizeof(real))
product_kernel(left a, right b, epilogue e, extent size)
{
    SHARED(real, slices_a, [2][SLICE][rows + PAD]);
    SHARED(real, slices_b, [2][SLICE][columns + PAD]);
    const int own = own_rows<rows>(), threads = threads_of<rows, columns>();
    int across = ceil_of<int>(size.n, columns), down = (int)blockIdx.x / across;
    int row0 = down * rows, column0 = ((int)blockIdx.x - down * across) * columns;
    int depth = (int)blockIdx.z * size.split, end = min(depth + size.split, size.depth);
    mover<real, left, rows, width_a, threads> from_a(a, row0);
    mover<real, right, columns, width_b, threads> from_b(b, column0);
    int row = (int)threadIdx.x / (columns / COLUMNS) * own, column = (int)threadIdx.x % (columns / COLUMNS) * COLUMNS;
    real sums[own][COLUMNS] = {};
    int now = 0;
    if (depth < end) {
        from_a.fetch(a, depth);
        from_b.fetch(b, depth);
        from_a.put(slices_a[0]);
        from_b.put(slices_b[0]);
    }
    for (; depth < end; depth += SLICE, now ^= 1) {
        __syncthreads();
        bool more = depth + SLICE < end;
        if (more) {
            from_a.fetch(a, depth + SLICE);
            from_b.fetch(b, depth + SLICE);
        }
        multiply<real, own, rows, columns>(slices_a[now], slices_b[now], row, column, sums);
        if (more) {
            from_a.put(slices_a[now ^ 1]);
            from_b.put(slices_b[now ^ 1]);
        }
    }
#pragma unroll
    for (int i = 0; i < own; i++)
        if (row0 + row + i < size.m && column0 + column < size.n)
            e(row0 + row + i, column0 + column, sums[i], (int)blockIdx.z);
}

enum { SMALL_TILE = 32, LARGE_ROWS = 128, LARGE_COLUMNS = 64, BUSY = 64, SPLITS = 1024 };

template <class real, int rows, int columns, int width_a, int width_b, class left, class right, class epilogue>
static int tiles(const left &a, const right &b, const epilogue &e, extent size)
{
    int64_t blocks = ceil_of<int64_t>(size.m, rows) * ceil_of<int64_t>(size.n, columns);
    int64_t splits = max64(1, ceil_of<int64_t>(size.depth, size.split));
    if (blocks > INT32_MAX)
        return TG_BAD_ARGUMENT;
    if (blocks)
        LAUNCH((product_kernel<real, rows, columns, width_a, width_b, left, right, epilogue>),
               dim3((unsigned)blocks, 1, (unsigned)splits), (threads_of<rows, columns>()), a, b, e, size);
    return launched();
}

/* Large tiles where there are enough of them and 16 bytes can be read at once. float64, which is there to check
 * float32, has small ones only. */
template <class real, int width_a, int width_b, class left, class right, class epilogue>
static int product(const left &a, const right &b, const epilogue &e, extent size)
{
    if constexpr (sizeof(real) == 4 && width_a > 1 && width_b > 1)
        if (ceil_of<int64_t>(size.m, LARGE_ROWS) * ceil_of<int64_t>(size.n, LARGE_COLUMNS) >= BUSY)
            return tiles<real, LARGE_ROWS, LARGE_COLUMNS, width_a, width_b>(a, b, e, size);
    return tiles<real, SMALL_TILE, SMALL_TILE, width_a, width_b>(a, b, e, size);
}

#endif
