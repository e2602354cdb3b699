"""Axes added, dropped, joined and parted: other words for `reshape` and `getitem`, under PyTorch's names."""

from __future__ import annotations

import math
from typing import Any

from tinygen.ops.shape import broadcast_to, getitem, reshape


def flatten(x, start_dim: int = 0, end_dim: int = -1):
    """The axes from start_dim to end_dim, both included, as one."""
    axes = max(len(x.shape), 1)
    if not (-axes <= start_dim < axes and -axes <= end_dim < axes):
        raise IndexError(
            f"flatten: dims must be in {-axes}..{axes - 1} for shape {x.shape}, got {start_dim}, {end_dim}"
        )
    first, last = start_dim % axes, end_dim % axes
    if first > last:
        raise ValueError(f"flatten: start_dim {start_dim} must not stand after end_dim {end_dim}")
    shape = x.shape or (1,)
    return reshape(x, (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :]))


def unsqueeze(x, dim: int):
    """A new axis of length 1 at dim of the result."""
    axes = len(x.shape) + 1
    if not -axes <= dim < axes:
        raise IndexError(f"unsqueeze: dim must be in {-axes}..{axes - 1} for shape {x.shape}, got {dim}")
    return reshape(x, (*x.shape[: dim % axes], 1, *x.shape[dim % axes :]))


def squeeze(x, dim: Any = None):
    """Without the axes of length 1, or those of them in dim; longer ones stay."""
    axes = len(x.shape)
    dims = range(axes) if dim is None else (dim,) if isinstance(dim, int) else dim
    if not all(-max(axes, 1) <= d < max(axes, 1) for d in dims):
        raise IndexError(f"squeeze: dim must be in {-axes}..{axes - 1} for shape {x.shape}, got {dim}")
    gone = {d % axes for d in dims} if axes else set()
    return reshape(x, tuple(n for i, n in enumerate(x.shape) if n != 1 or i not in gone))


def split(x, split_size: Any, dim: int = 0):
    """A tuple of parts along dim: of this length each, but for the last, or of the lengths in a list."""
    n = x.shape[dim]
    if isinstance(split_size, int):
        if split_size < 1:
            raise ValueError(f"split: split_size must be at least 1, got {split_size}")
        lengths = [min(split_size, n - i) for i in range(0, n, split_size)] or [0]
    else:
        lengths = list(split_size)
        if sum(lengths) != n or min(lengths) < 0:
            raise ValueError(f"split: split_size must add up to {n}, the length of dim {dim}, got {split_size}")
    before, ends = (slice(None),) * (dim % len(x.shape)), [sum(lengths[: i + 1]) for i in range(len(lengths))]
    return tuple(getitem(x, (*before, slice(end - k, end))) for end, k in zip(ends, lengths, strict=True))


def chunk(x, chunks: int, dim: int = 0):
    """A tuple of at most so many parts along dim, equally long but for the last."""
    if chunks < 1:
        raise ValueError(f"chunk: chunks must be at least 1, got {chunks}")
    return split(x, max(-(-x.shape[dim] // chunks), 1), dim)


def unbind(x, dim: int = 0):
    """A tuple of the slices along dim, which is gone."""
    before = (slice(None),) * (dim % len(x.shape))
    return tuple(getitem(x, (*before, i)) for i in range(x.shape[dim]))


def repeat(x, *repeats: int | tuple[int, ...]):
    """x copied so many times along each axis, new axes first."""
    times = repeats[0] if len(repeats) == 1 and isinstance(repeats[0], (tuple, list)) else repeats
    if len(times) < len(x.shape):
        raise ValueError(f"repeat: there must be a number for each axis of {x.shape}, got {tuple(times)}")
    shape = (1,) * (len(times) - len(x.shape)) + tuple(x.shape)
    paired = [k for n in shape for k in (1, n)]
    wide = [k for t, n in zip(times, shape, strict=True) for k in (t, n)]
    return reshape(broadcast_to(reshape(x, paired), wide), tuple(t * n for t, n in zip(times, shape, strict=True)))
