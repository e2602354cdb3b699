"""Gradients: how they flow back through the nodes that the ops left.

`backward` and `grad` walk the nodes from the newest to the oldest and run their rules on arrays. With
`create_graph=True` they run the very same rules on Tensors, which records them in turn: that is all that higher
derivatives take.

The engine's last file of four: `_tensor.py`, `modes.py`, `tape.py`, `autograd.py`.

Source: reverse mode as in Griewank & Walther, Evaluating Derivatives (2008), chapter 3.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Any

import numpy as np

from tinygen import errors, modes
from tinygen._tensor import RELEASED, Node, Tensor, leaf
from tinygen.array import on_device_of, xp
from tinygen.pool import empty_like
from tinygen.tape import REGISTRY, Call, frozen, run_hooked


def backward(
    tensor: Tensor, gradient: Any = None, retain_graph: bool | None = None, create_graph: bool = False
) -> None:
    """Add the gradient of this tensor to `.grad` of every leaf that it was computed from.

    Args:
        gradient: d(loss)/d(this tensor), same shape and dtype; may be left out for a single element (then 1).
        retain_graph: keep what was saved, so that backward can run again. Default: same as create_graph.
        create_graph: record the backward pass itself, for gradients of gradients.

    Raises:
        RuntimeError: no graph; backward twice without retain_graph; a saved array was changed in place.
        ValueError: gradient missing for a tensor of several elements, or of the wrong shape or dtype.
    """
    grads = modes.recording(create_graph).run(_propagate, [tensor], [gradient], None, retain_graph, create_graph)
    # Only now, when nothing can fail any more, is anything changed.
    for x in list(grads):
        held = [grads.pop(x)]
        if create_graph:
            x._grad = held[0] if x._grad is None else x._grad + held[0]
        elif x._grad is None or x._grad._version is None:  # none yet, or one that is part of a graph
            x._grad = _own(x, held if x._grad is None else [x._grad._array + held[0]])
        else:
            array = x._grad.write()
            array += held[0]


Tensor.backward = backward  # type: ignore[method-assign, assignment]


def _own(model: Tensor, held: list[Any]) -> Tensor:
    """A new leaf with the values held, in the memory order of `model`: optimizers walk both side by side.

    An array to whose memory only the list refers becomes the leaf's own. Two references: the other one is the call's.
    """
    same = held[0].__class__ is model._array.__class__ and held[0].strides == model._array.strides
    if same and sys.getrefcount(held[0]) == 2 and (held[0].base is None or sys.getrefcount(held[0].base) == 2):
        return leaf(held[0])
    array = empty_like(model._array)
    array[...] = held[0]
    return leaf(array)


def grad(
    outputs: Tensor | Sequence[Tensor], inputs: Tensor | Sequence[Tensor], grad_outputs: Any = None,
    retain_graph: bool | None = None, create_graph: bool = False,
) -> tuple[Tensor, ...]:  # fmt: skip
    """The gradients of the (sum of the) outputs with respect to the inputs, leaves or not, as new tensors.

    `.grad` isn't touched, and nothing is computed beyond the inputs. An input that the outputs don't depend on has
    gradient zero.

    Args:
        outputs, inputs: one tensor, or several.
        grad_outputs: for each output d(loss)/d(output), None for a single element (then 1).
        retain_graph, create_graph: as in `Tensor.backward`.

    Raises:
        ValueError: an input doesn't require a gradient; grad_outputs don't fit the outputs.
        RuntimeError: as `Tensor.backward`.
    """
    outputs, inputs = ([v] if isinstance(v, Tensor) else list(v) for v in (outputs, inputs))
    if grad_outputs is None:
        grad_outputs = [None] * len(outputs)
    elif isinstance(grad_outputs, Tensor) or hasattr(grad_outputs, "dtype"):
        grad_outputs = [grad_outputs]
    if len(grad_outputs) != len(outputs):
        raise ValueError(f"grad: {len(grad_outputs)} grad_outputs for {len(outputs)} outputs")
    if constant := [i for i, x in enumerate(inputs) if not x.requires_grad]:
        raise ValueError(f"grad: inputs[{constant[0]}] does not require a gradient")
    targets = [x._source[0] if x._source else x for x in inputs]
    grads = modes.recording(create_graph).run(_propagate, outputs, grad_outputs, {*targets}, retain_graph, create_graph)
    found = [[grads.get(key, 0)] for key in targets]
    grads.clear()
    return tuple(g[0] if isinstance(g[0], Tensor) else _own(x, g) for x, g in zip(inputs, found, strict=True))


def _propagate(outputs: Sequence[Tensor], gradients: Any, targets: Any, retain_graph: Any, create_graph: bool) -> Any:
    """The gradients of all leaves, or of the targets only, by key: node's number plus output's, or the leaf itself.

    The newest node with a gradient is always next: all that was made from it is newer, so its gradient is complete.
    """
    retain = create_graph if retain_graph is None else retain_graph
    mode, add = modes.current.get(), REGISTRY["add"].function
    default = not (mode.hooks or create_graph or targets)
    grads: dict[Any, Any] = {}
    owned: set[Any] = set()  # keys whose gradient array was allocated here, and may be added to in place
    queue: list[int] = []  # a heap of the keys with a gradient, negated
    nodes: dict[int, Node] = {}  # their nodes
    path = None if targets is None else _leading_to(targets, outputs)
    # The outputs come as if they were the inputs of a node whose rule has just run.
    node: Any = None
    sources: Any = [o._source or (o, None) for o in outputs]
    shapes: Any = [o.shape for o in outputs]
    dtype = outputs[0]._array.dtype
    results: Any = [_check_gradient(o, g, dtype, create_graph) for o, g in zip(outputs, gradients, strict=True)]
    while True:
        for (key, parent), shape, g in zip(sources, shapes, results):  # noqa: B905 (strict costs time, and can't fail)
            if g is None:
                continue
            if g.shape != shape or g.dtype is not dtype:
                g = _fit(g, shape, dtype, node)
            if key in owned and not mode.hooks:
                grads[key] += g
            elif key in grads:
                grads[key] = _seen("add", node, grads[key], g) if mode.hooks else add(grads[key], g)
                if not create_graph:
                    owned.add(key)
            elif parent is None:
                grads[key] = g
            elif path is None or parent.number in path or key in (targets or ()):
                grads[key], nodes[key] = g, parent
                heappush(queue, -key)
        if not queue:
            return grads
        node = nodes.pop(-heappop(queue), None)
        if node is None or (path is not None and node.number not in path):
            results = ()  # done already, for another of its outputs; or a target that leads no further
            continue
        number, plan, sources, shapes, dtype, saved, guards = node
        if guards or (saved and saved[0] is RELEASED[0]):
            node.check()
        try:
            if default and plan.reference is mode.reference and len(plan.op.outputs) == 1:
                gout, results = grads.pop(number), ()
                if plan.op.adds and sources[0][0] in owned:
                    plan.op.adds(grads[sources[0][0]], gout, *saved)
                else:
                    results = plan.vjp(plan, gout, *saved)
            else:
                results = _run_rules(node, grads, nodes, targets or (), create_graph, mode.hooks)
        except Exception as e:
            errors.fail(e, f"backward of {node}")
        if not retain:
            saved[:] = RELEASED  # lets go of the arrays; and a second backward is recognized by it


def _run_rules(
    node: Node, grads: dict[Any, Any], nodes: dict[int, Node], targets: Any, create_graph: bool, hooks: tuple[Any, ...]
) -> Any:
    """The rules of a node with several outputs, or under hooks, or on Tensors."""
    plan = node.plan
    gouts = []
    for key in range(node.number, node.number + len(plan.op.outputs)):
        gouts.append(grads.get(key) if key in targets else grads.pop(key, None))
        nodes.pop(key, None)
    run = functools.partial(plan.vjp, plan, *gouts, *(_rewrapped(node) if create_graph else node.saved))
    if not hooks and plan.reference is modes.is_reference():
        return run()
    same = modes.Block(lambda mode: mode._replace(reference=plan.reference))  # as when the op ran forward
    return same.run(run_hooked, hooks, Call(plan.op, "backward", gouts, node), run)


def _seen(name: str, node: Node, *values: Any) -> Any:
    """An op on gradients, which hooks see: on arrays none would."""
    run = functools.partial(REGISTRY[name].function, *values)
    return run_hooked(modes.current.get().hooks, Call(REGISTRY[name], "accumulate", values, node), run)


def _fit(g: Any, shape: Any, dtype: Any, node: Node) -> Any:
    """A gradient in the shape and dtype of its input: broadcasting is undone here, for all ops."""
    if g.shape != shape:
        if np.broadcast_shapes(g.shape, shape) != g.shape:
            raise ValueError(f"a vjp rule of {node.plan.op.name} gave a gradient of {g.shape} for an input of {shape}")
        g = _seen("sum_to", node, g, shape)
    if g.dtype != dtype:
        g = g.to(dtype) if isinstance(g, Tensor) else g.astype(dtype)
    return g


def _rewrapped(node: Node) -> list[Any]:
    """The saved values, those of the graph as Tensors. (They are kept as arrays so that no cycle forms.)"""
    plan, saved = node.plan, list(node.saved)
    sources = dict(zip(plan.tracked, node.parents, strict=True))
    sources |= {plan.n + i: (node.number + i, node) for i in range(len(plan.op.outputs))}
    guards = iter(node.guards)
    for i, k in enumerate(plan.keep):
        version = next(guards, (None, None))[0] if 0 <= k < plan.n else None
        key, parent = sources.get(k, (None, None))
        if parent and saved[i].dtype.kind == "f":
            saved[i] = t = Tensor(saved[i])
            t.requires_grad, t._source, t._version = True, (key, parent), version
        elif isinstance(key, Tensor):
            saved[i] = key
    return saved


def _check_gradient(output: Tensor, gradient: Any, dtype: Any, create_graph: bool) -> Any:
    if not output.requires_grad:
        raise RuntimeError("backward: this tensor does not depend on anything that requires a gradient")
    if gradient is None:
        if output.numel() != 1:
            raise ValueError(f"backward: a tensor of shape {output.shape} needs a gradient of that shape")
        gradient = xp(output._array).ones_like(output._array)
    if not isinstance(gradient, Tensor):
        values = frozen(gradient) if hasattr(gradient, "dtype") else np.asarray(gradient, output.dtype)
        gradient = Tensor(on_device_of(output._array, values))
    if gradient.shape != output.shape or gradient.dtype != output.dtype or output.dtype != dtype:
        came, wanted = errors.describe([gradient]), errors.describe([output])
        raise ValueError(f"backward: gradient is {came}, but the tensor is {wanted}")
    if create_graph:
        return gradient if gradient._version is None else gradient * 1.0  # not the tensor that the caller may change
    return gradient._array


def _leading_to(targets: set[Any], outputs: Sequence[Tensor]) -> set[int]:
    """The numbers of the nodes on a path from a target to an output."""
    nodes: dict[int, Node] = {}
    stack = [o._source[1] for o in outputs if o._source]
    while stack:
        node = stack.pop()
        if node.number not in nodes:
            nodes[node.number] = node
            stack += [parent for _, parent in node.parents if parent]
    leading: set[int] = set()
    for number in sorted(nodes):  # oldest first
        if any(key in targets or (parent and parent.number in leading) for key, parent in nodes[number].parents):
            leading.add(number)
    return leading
