"""Higher derivatives of fused ops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tinygen._tensor import Tensor
from tinygen.array import xp
from tinygen.autograd import grad
from tinygen.modes import enable_grad
from tinygen.ops.shape import reshape


def derive_from(definition: Callable[..., Any]) -> Callable[[Sequence[Any], Sequence[Any]], list[Any]]:
    """The gradients of a function of arrays that is written in ops, by differentiating it on a tape of its own.

    Returns `gradients(inputs, gouts)`: for each input its gradient. gouts has the gradient of each output, or None;
    None among the inputs stands for one that was left out. On arrays the gradients are arrays. On Tensors they are
    Tensors that can be differentiated again: `gradients` is itself a function written in ops, so

        derive_from(lambda *args: gradients(args[:n], args[n:]))

    gives the gradients of the gradients. With the two, a fused op with a fused backward pass has derivatives of any
    order.
    """

    def gradients(inputs: Sequence[Any], gouts: Sequence[Any]) -> list[Any]:
        on_tensors = any(map(_is_tracked, (*inputs, *gouts)))
        with enable_grad():
            own = [None if x is None else _own(x) for x in inputs]
            outs = definition(*own)
            outs = outs if isinstance(outs, (tuple, list)) else (outs,)
            used = [(o, g) for o, g in zip(outs, gouts, strict=True) if g is not None and _is_tracked(o)]
            given = [x for x in own if x is not None]
            if used:
                found = iter(grad([o for o, _ in used], given, [g for _, g in used], create_graph=on_tensors))
            else:
                found = iter([Tensor(xp(x._array).zeros_like(x._array)) for x in given])
        return [None if x is None else next(found) if on_tensors else next(found)._array for x in own]

    return gradients


def _is_tracked(x: Any) -> bool:
    return isinstance(x, Tensor) and x.requires_grad


def _own(x: Any) -> Tensor:
    """x as a Tensor on its own, at which `grad` stops: not beyond it, nor at another input that x was made from."""
    if _is_tracked(x):
        return reshape(x, x.shape)
    t = Tensor(x._array if isinstance(x, Tensor) else x)
    t.requires_grad = True
    return t
