"""Ops that move values without changing them: shapes, axes, indexing. Views where NumPy gives views."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinygen import kernels
from tinygen.array import check_index, inverse, long_parts, memory_order, on_device_of, total, xp
from tinygen.ops._samples import normal, sample
from tinygen.tape import op


@op
def sum_to(x, shape):
    """Sum x over the axes along which `shape` would be broadcast to x's shape: the adjoint of `broadcast_to`."""
    if np.broadcast_shapes(x.shape, shape) != x.shape:
        raise ValueError(f"x of shape {x.shape} can't be summed to {shape}")
    lead = x.ndim - len(shape)
    axes = (*range(lead), *(lead + i for i, n in enumerate(shape) if n == 1 and x.shape[lead + i] != 1))
    return total(x, axes, True).reshape(shape)


@op(view=True)
def broadcast_to(x, shape):
    """x repeated along new axes and axes of length 1, without a copy. As numpy.broadcast_to."""
    return xp(x).broadcast_to(x, shape)


@sum_to.vjp("x")
def _(gout, x_shape):
    return broadcast_to(gout, x_shape)


@broadcast_to.vjp("x")
def _(gout):
    return gout  # the engine sums it to x's shape


def expand(x, *shape: int | tuple[int, ...]):
    """x repeated along new axes and axes of length 1, without a copy; a length of -1 leaves the axis as it is."""
    sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    lead = len(sizes) - len(x.shape)
    return broadcast_to(x, tuple(x.shape[i - lead] if n == -1 and i >= lead else n for i, n in enumerate(sizes)))


@op(view=True)
def reshape(x, shape: int | Sequence[int]):
    """x with a new shape; one length may be -1."""
    return x.reshape(shape)


@reshape.kernel
def _(x, shape):
    return kernels.layout.reshape(x, shape)


@reshape.vjp("x")
def _(gout, x_shape):
    return reshape(gout, x_shape)


@op(view=True)
def permute(x, dims: Sequence[int]):
    """The axes of x in a new order: `permute(x, (0, 2, 3, 1))` takes NCHW to NHWC."""
    return xp(x).transpose(x, dims)


@permute.vjp("x")
def _(gout, dims):
    return permute(gout, tuple(sorted(range(len(dims)), key=lambda i: dims[i] % len(dims))))


@op(view=True)
def transpose(x, dim0: int, dim1: int):
    """x with two axes exchanged."""
    return xp(x).swapaxes(x, dim0, dim1) if x.ndim else x


@transpose.vjp("x")
def _(gout, dim0, dim1):
    return transpose(gout, dim0, dim1)


@op(view=True)
def flip(x, dims: int | Sequence[int]):
    """x with the order along the axes dims reversed."""
    return xp(x).flip(x, dims)


@flip.vjp("x")
def _(gout, dims):
    return flip(gout, dims)


@op
def roll(x, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None):
    """x with the elements along each of the axes dims moved by its shift, round the end; None: of x as one row."""
    return xp(x).roll(x, shifts, dims)


@roll.vjp("x")
def _(gout, shifts, dims):
    return roll(gout, -shifts if isinstance(shifts, int) else tuple(-n for n in shifts), dims)


@op
def tril(x, diagonal: int = 0):
    """The lower triangles of matrices (..., M, N), zeros above the diagonal of that number (1: the one above)."""
    return xp(x).tril(x, diagonal)


@tril.vjp("x")
def _(gout, diagonal):
    return tril(gout, diagonal)


@op
def triu(x, diagonal: int = 0):
    """The upper triangles of matrices (..., M, N), zeros below the diagonal of that number (1: the one above)."""
    return xp(x).triu(x, diagonal)


@triu.vjp("x")
def _(gout, diagonal):
    return triu(gout, diagonal)


@op(view=True)
def getitem(x, index):
    """x[index], basic or advanced. Index arrays are kept; their elements count from either end, out of range raises."""
    return x[_placed(x, index)]


@getitem.vjp("x")
def _(gout, x_shape, index):
    return index_add(gout, index, x_shape)


def _add_at(total, gout, x_shape, index):
    """Of the elements of an array taken one after the other, each adds to its own, not zeros to all the others."""
    if not is_basic(index):
        xp(total).add.at(total, _placed(total, index), gout)
    elif not gout.ndim:  # of a single number NumPy gives a copy
        total[index] += gout
    else:
        for part, more in long_parts(total[index], gout):
            part += more


getitem.op.adds = _add_at


@op
def index_add(x, index, shape):
    """Zeros of the given shape to which x is added at [index], also where it repeats: the adjoint of `getitem`."""
    out = xp(x).zeros_like(x, shape=shape)  # in x's order in memory, if it has as many axes
    if is_basic(index) and x.ndim > 1:
        for part, values in long_parts(out[index], x):
            part[...] = values
    else:
        _add_at(out, x, shape, index)
    return out


@index_add.vjp("x")
def _(gout, index):
    return getitem(gout, index)


def is_basic(index):
    """Whether no element can be named twice."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(p is None or p is Ellipsis or (isinstance(p, (int, slice)) and p.__class__ is not bool) for p in parts)


def _placed(x, index):
    """The index, its arrays on x's device. CuPy would wrap around what is out of range: here it raises IndexError."""
    if xp(x) is np or is_basic(index):
        return index
    parts: list = []
    for p in index if isinstance(index, tuple) else (index,):
        p = np.array(p, None if p else int) if isinstance(p, list) else p
        parts += p.nonzero() if getattr(p, "dtype", None) == np.bool_ else [p]
    axis, spare = 0, x.ndim - sum(p is not None and p is not Ellipsis for p in parts)
    for i, p in enumerate(parts):
        if hasattr(p, "dtype"):
            n = x.shape[axis]
            if p.size and not (-n <= p.min() and p.max() < n):
                raise IndexError(f"index {p.min()}..{p.max()} is out of bounds for axis {axis} with size {n}")
            parts[i] = on_device_of(x, p)
        axis += spare if p is Ellipsis else p is not None
    return tuple(parts)


@op
def index_select(x, dim: int, index):
    """The slices of x along dim that integers (K,) name: (..., n, ...) -> (..., K, ...), in x's order in memory."""
    check_index(index)
    if index.ndim > 1:
        raise ValueError(f"index must have one axis, got shape {index.shape}")
    if not x.ndim:
        return x.reshape(1)[_placed(x.reshape(1), (index.reshape(-1),))].reshape(())
    (places,), order = _placed(x.swapaxes(0, dim), (index.reshape(-1),)), memory_order(x)
    return xp(x).take(x.transpose(order), places, axis=order.index(dim % x.ndim)).transpose(inverse(order))


@index_select.vjp("x")
def _(gout, x_shape, dim, index):
    return select_add(gout, dim, index, x_shape)


@op
def select_add(x, dim, index, shape):
    """Zeros of the given shape, to whose slices along dim those of x are added: the adjoint of `index_select`."""
    out = xp(x).zeros_like(x, shape=shape)
    if not shape:
        return out + x
    if out.swapaxes(0, dim).shape[1:] != x.swapaxes(0, dim).shape[1:] or x.shape[dim] != index.size:
        raise ValueError(f"x of shape {x.shape} can't be added to {shape} along dim {dim}, {index.size} slices")
    sums, parts = out.swapaxes(0, dim), x.swapaxes(0, dim)
    for i, place in enumerate(index.reshape(-1).tolist()):
        sums[place] += parts[i]
    return out


@select_add.vjp("x")
def _(gout, dim, index):
    return index_select(gout, dim, index)


@op
def gather(x, dim: int, index):
    """out[.., i, ..] = x[.., index[.., i, ..], ..] along dim. index: integers, as many axes as x; out has its shape.

    A 0-d x or index counts as an array of one element.
    """
    x = x if x.ndim else x.reshape(1)
    return x[_placed(x, _grid(x, dim, index))]


@gather.vjp("x")
def _(gout, x_shape, dim, index):
    return scatter_add(gout, dim, index, x_shape)


@op
def scatter_add(x, dim, index, shape):
    """Zeros of the given shape to which x is added at index along dim: the adjoint of `gather`."""
    if not shape:
        return index_add(x, _grid(x, dim, index), (1,)).reshape(())
    return index_add(x, _grid(x, dim, index), shape)


def _grid(x, dim, index):
    """The index along dim, beside each axis's own numbers along the others."""
    check_index(index)
    if x.ndim <= 1 and index.ndim <= 1:
        return (index,)
    if index.ndim != x.ndim:
        raise ValueError(f"index must have as many axes as x, {x.ndim}, not {index.ndim}")
    grid = [n.reshape([-1 if i == axis else 1 for i in range(index.ndim)])
            for axis, n in enumerate(map(np.arange, index.shape))]  # fmt: skip
    grid[dim] = index
    return tuple(grid)


@scatter_add.vjp("x")
def _(gout, dim, index):
    return gather(gout, dim, index)


@op
def pad(x, widths):
    """x with zeros around it: widths is ((before, after), ...), one pair for each axis."""
    out = xp(x).zeros_like(x, shape=[b + n + a for (b, a), n in zip(widths, x.shape, strict=True)])
    out[tuple(slice(b, b + n) for (b, _), n in zip(widths, x.shape, strict=True))] = x
    return out  # xp.pad would give C order, whatever x's


@pad.vjp("x")
def _(gout, x_shape, widths):
    return getitem(gout, tuple(slice(b, b + n) for (b, _), n in zip(widths, x_shape, strict=True)))


@op(casts=True)
def to(x, dtype):
    """x converted to another dtype. To float types the gradient comes back in x's own dtype."""
    return x.astype(dtype)


@to.vjp("x")
def _(gout):
    return gout  # the engine converts it to x's dtype


# ---------------------------------------------------------------------------------------------- what they are tested on


@sum_to.samples
def _(rng):
    yield sample(rng.standard_normal((2, 3, 4)), (3, 1))
    yield sample(rng.standard_normal((2, 3)), ())


@broadcast_to.samples
def _(rng):
    yield sample(rng.standard_normal((3, 1)), (2, 3, 4))
    yield sample(rng.standard_normal(()), (2,))


@reshape.samples
def _(rng):
    yield sample(normal(rng, 2, 3, 4), (4, -1))
    yield sample(normal(rng, 1), ())
    yield sample(normal(rng, 2, 2, 3, 3).transpose(0, 3, 1, 2), (2, 18))


@permute.samples
def _(rng):
    yield sample(normal(rng, 2, 3, 4), (2, 0, 1))


@transpose.samples
def _(rng):
    yield sample(normal(rng, 2, 3, 4), 0, -1)


@flip.samples
def _(rng):
    yield sample(normal(rng, 2, 3, 4), (0, 2))


@roll.samples
def _(rng):
    yield sample(normal(rng, 3, 4), 1)
    yield sample(normal(rng, 3, 4), -1, 0)
    yield sample(normal(rng, 3, 4), (5, 1), (1, 0))


@tril.samples
@triu.samples
def _(rng):
    yield sample(normal(rng, 3, 4))
    yield sample(normal(rng, 2, 4, 3), 1)
    yield sample(normal(rng, 3, 3), -1)


@getitem.samples
def _(rng):
    x = normal(rng, 3, 4)
    for index in (1, slice(None, None, -2), (slice(1), 2), (Ellipsis, None, 0), np.array([[0, -1], [0, 2]]), x > 0,
                  (np.array([0, 2, 0]), slice(1, 3)), (np.array([1, 1]), np.array([2, 2]))):  # fmt: skip
        yield sample(x, index)


@index_add.samples
def _(rng):
    yield sample(normal(rng, 3, 2), np.array([1, 0, 1]), (4, 2))
    yield sample(normal(rng, 2), (slice(0, 4, 2), 1), (4, 2))


@index_select.samples
def _(rng):
    yield sample(normal(rng, 3, 4, 2), 1, np.array([0, -1, 0, 2]))
    yield sample(normal(rng, 3), -1, np.array(2))
    yield sample(normal(rng), 0, np.array([0]))


@select_add.samples
def _(rng):
    yield sample(normal(rng, 3, 4, 2), 1, np.array([0, 2, 0, 1]), (3, 5, 2))
    yield sample(normal(rng, 4, 2), 0, np.array([0, 2, 0, 1]), (5, 2))
    yield sample(normal(rng), 0, np.array([0]), ())


@gather.samples
def _(rng):
    yield sample(normal(rng, 3, 4), 1, rng.integers(0, 4, (3, 5)))
    yield sample(normal(rng, 3, 4), 0, rng.integers(0, 3, (2, 4)))
    yield sample(normal(rng, 3, 4), 1, rng.integers(0, 4, (2, 5)))
    yield sample(normal(rng), 0, np.zeros(3, int))
    yield sample(normal(rng, 3), 0, np.array(2))


@scatter_add.samples
def _(rng):
    yield sample(normal(rng, 3, 5), 1, rng.integers(0, 4, (3, 5)), (3, 4))
    yield sample(normal(rng, 2, 5), 1, rng.integers(0, 4, (2, 5)), (3, 4))
    yield sample(normal(rng, 3), 0, np.zeros(3, int), ())


@pad.samples
def _(rng):
    yield sample(normal(rng, 2, 3), ((1, 0), (0, 2)))


@to.samples
def _(rng):
    yield sample(normal(rng, 2, 3), np.float64)
