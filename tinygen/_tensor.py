"""Tensor: an array, its gradient, and the node that tells how it was made.

This is the first file of the engine, and only holds the data. The engine fits in one sitting; read it in this order:

    _tensor.py     Tensor and Node: the graph
    modes.py       no_grad, reference, hook: what holds for the ops of a thread (on the first reading, skip it)
    tape.py        op: how a call runs and leaves a node
    autograd.py    backward and grad: how gradients flow back through the nodes

Later files attach the rest: `autograd` the method `backward`, `tinygen.ops` the operators (`Tensor.__mul__ = mul`).
Nothing of this needs `_codegen.py`, which writes code for each op that does the same faster.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tinygen import errors, pool
from tinygen.array import moved

if TYPE_CHECKING:
    from tinygen._operators import Operators
else:
    Operators = object  # attached: `backward` by tinygen.autograd, the others by tinygen.ops, as ops like any other

Array = Any  # a numpy.ndarray, or a cupy.ndarray on a GPU: the array's type is the device


class Tensor(Operators):
    """An array that remembers how it was computed, so that gradients can flow back through it.

    Make one with `tinygen.tensor`. Its array never changes behind your back: there is no item assignment, `numpy()`
    is read-only, and the one mutator, `write`, which only leaves have, counts a version by which autograd notices a
    change of what it kept.

    Attributes:
        grad: for a leaf (made by `tensor`, not by an op), its gradient after `backward()`, a Tensor of its own shape
            and dtype; gradients of several `backward()` calls add up. None before.
        requires_grad: whether operations on it are recorded.
        shape, ndim, dtype: as in NumPy. device: "cpu" or "cuda".
    """

    __array_ufunc__ = None  # `ndarray * Tensor` comes to Tensor.__rmul__ instead of NumPy's elementwise loop

    # Defaults live on the class: making a Tensor, which every op does, then sets only what differs.
    requires_grad: bool = False
    _grad: Tensor | None = None
    _source: tuple[int, Node] | None = None  # the node that made it, and the key of its gradient; None for a leaf
    _version: list[int] | None = None  # counts in-place changes; shared by views; None where there can't be any

    def __init__(self, array: Array) -> None:
        self._array = array

    shape = property(lambda self: self._array.shape)
    grad = property(lambda self: self._grad, errors.set_grad)
    ndim = property(lambda self: self._array.ndim)
    dtype = property(lambda self: self._array.dtype)

    @property
    def is_leaf(self) -> bool:
        """Whether it was made by hand rather than by a recorded op."""
        return self._source is None

    def numel(self) -> int:
        """The number of elements."""
        return int(self._array.size)

    def numpy(self) -> np.ndarray:
        """The values as a read-only NumPy array that shares the memory (copied from a GPU)."""
        view = moved(self._array, np).view()
        view.flags.writeable = False
        return view

    def item(self) -> float | int | bool:
        """The single element as a Python number. Raises ValueError if there isn't exactly one."""
        if self._array.size != 1:
            raise ValueError(f"item: only a tensor of one element has an item, this one has shape {self.shape}")
        return self._array.item()

    def detach(self) -> Tensor:
        """The same values, cut off from the graph. Memory is shared."""
        t = Tensor(self._array)
        t._version = self._version
        return t

    def write(self) -> Array:
        """The array itself, to be changed in place. The only mutator; for optimizers and initializers.

        It counts a new version: a backward pass that had kept the old values raises instead of using the new ones.

        Raises:
            RuntimeError: the tensor is the result of an op, which never changes.
        """
        if self._version is None or self._source is not None:
            raise RuntimeError("write: only a tensor made by tinygen.tensor can be changed in place")
        self._version[0] += 1
        return self._array

    def __len__(self) -> int:
        if self._array.ndim == 0:
            raise TypeError("len: a 0-d tensor has no length")
        return len(self._array)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self.requires_grad:
            raise TypeError("a tensor that requires a gradient becomes an array by .detach().numpy()")
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __bool__(self) -> bool:
        if self._array.size != 1:
            raise ValueError(f"bool: the truth of a tensor of shape {self.shape} is ambiguous")
        return bool(self._array.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __getstate__(self) -> dict[str, Any]:
        """The state of a leaf for copy.deepcopy and pickle. RuntimeError for the result of an op, as in PyTorch."""
        if self._source:
            made_by = self._source[1]
            raise RuntimeError(f"only leaves can be copied or pickled, not the result of {made_by}: use its .detach()")
        return vars(self)

    def __repr__(self) -> str:
        made_by = f", made_by={self._source[1].plan.op.name}" if self._source else ""
        flag = ", requires_grad=True" if self.requires_grad and not self._source else ""
        return f"tensor({np.array2string(self.numpy(), separator=', ', prefix='tensor(')}{flag}{made_by})"

    __hash__ = object.__hash__  # `==` compares elementwise; a Tensor in a set or dict is itself


RELEASED = (object(),)  # stands where saved arrays stood


class Node(NamedTuple):
    """One recorded call of an op: what it was made from, and what its gradient rules will need."""

    number: int  # grows along every path: a node is newer than what it was made from
    plan: Any  # the `tape.Plan`: of which op, with which inputs tracked, and how
    parents: tuple[Any, ...]  # for each tracked input its source: (key, node), of a leaf (the tensor itself, None)
    shapes: tuple[Any, ...]  # of the tracked inputs
    dtype: Any  # of the inputs
    saved: list[Any]  # arrays, shapes and attributes, in the order of plan.keep
    guards: Sequence[Any]  # for each saved input (its version, its count then); at last the call: (code, instruction)

    def __str__(self) -> str:
        """`mul (file:line)`, the line of the call in the user's code, as far as it was kept."""
        return self.plan.op.name + (f" ({errors.line(self.guards[-1])})" if self.guards else "")

    def check(self) -> None:
        """Raise RuntimeError if the saved arrays are gone, or no longer what they were."""
        if self.saved and self.saved[0] is RELEASED[0]:
            raise RuntimeError(f"backward through {self} a second time: the first needs retain_graph=True")
        for version, stamp in self.guards[:-1]:
            if version is not None and version[0] != stamp:
                raise RuntimeError(f"backward of {self}: a saved array was changed in place")


def tensor(data: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Make a leaf tensor from numbers, nested lists, or an array, whose values are copied.

    Python floats become float32; arrays keep their dtype, and their order in memory.

    Raises:
        TypeError: data that isn't numeric, or requires_grad for a tensor that isn't float32 or float64.
    """
    data = data._array if isinstance(data, Tensor) else data
    if problem := errors.foreign(data):
        raise TypeError(f"tensor: data {problem}")
    if dtype is None and not hasattr(data, "dtype") and np.asarray(data).dtype == np.float64:
        dtype = np.float32
    array = pool.copied(data, dtype)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"tensor: data must be numbers, not {array.dtype}")
    if requires_grad and array.dtype not in (np.float32, np.float64):
        raise TypeError(f"tensor: requires_grad needs float32 or float64, not {array.dtype}")
    return leaf(array, requires_grad)


def leaf(array: Array, requires_grad: bool = False) -> Tensor:
    """A leaf tensor on this very array, which from now on belongs to it."""
    t = Tensor(array)
    t.requires_grad = requires_grad
    t._version = [0]
    return t
