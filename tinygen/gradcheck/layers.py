"""Layer objects as subjects: forward and backward are methods, parameters and their gradients are attributes.

self.W, self.dW                                    (also grad_W, W_grad, gradW ...)
self.params["W"], self.grads["W"]                  (two dicts, of any names; keys W and dW too)
self.params = [W, b], self.grads = [dW, db]        (two lists)
self.W, self.grads["W"]                            (an attribute and a dict)
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tinygen.gradcheck.plain import PairSubject
from tinygen.gradcheck.sandbox import Trouble
from tinygen.gradcheck.source import last_assignment, matching, required_parameters
from tinygen.gradcheck.subject import Gradients
from tinygen.gradcheck.values import fresh, is_float_array, same, shared_memory

Array = Any
Place = tuple[Any, ...]  # ("W",), ("params", "W") or ("params", 0): the way from the layer to an array


class LayerSubject(PairSubject):
    """A layer object: the inputs of forward, and those parameters for which backward leaves a gradient on the layer.

    Each run is one of a copy, so that gradients that add up over calls, or a cache, don't mix.
    """

    def __init__(self, layer: Any, args: Sequence[Any], name: str = "", limit: float | None = 10.0) -> None:
        super().__init__(layer.forward, layer.backward, args, name or type(layer).__name__, limit)
        self.layer = layer
        parameters = inspect.signature(layer.backward).parameters
        self.keeps = True
        self.n_outputs = min(1, len(self.upstream_names) if required_parameters(layer.backward) else 0)
        self.upstream = self.n_outputs == 1  # `backward()` or `backward(dout=1)`: of a loss
        self.outputs, self.upstream_names = ["out"], list(parameters)[:1]
        self.places: list[tuple[Place, Place]] = []  # of each parameter and of its gradient

    def _settle(self) -> None:
        """Add the parameters that have a gradient to the arguments."""
        super()._settle()
        before = dict(_arrays(self.layer))
        try:
            layer, grads = self._backward(self.values, None)
        except Trouble as e:
            if e.problem.cause == "hangs":
                raise
            return
        after = dict(_arrays(layer))
        for place, value in before.items():
            found = _gradient_of(place, after, before)
            if found is not None:
                self.places.append((place, found))
                self.wrt.append(len(self.values))
                self.names.append(
                    str(place[-1] if len(place) == 1 or isinstance(place[-1], str) else f"{place[0]}{place[1]}")
                )
                self.values.append(np.asarray(value, np.float64))
        known = {p for pair in self.places for p in pair}
        rest = [p for p, v in before.items() if p not in known and is_float_array(v) and not _is_state(p)]
        if rest:
            only = "" if self.places else "only the gradients by the inputs were checked: "
            names = ", ".join(".".join(map(str, ("self", *p))) for p in rest[:4])
            self.remarks.append(f"{only}no gradient of {names} was found on the layer")
        if grads is None and self.places:
            self.wrt = [i for i in self.wrt if i >= self.n]
            self.remarks.append("backward returns nothing: only the gradients by the parameters were checked")

    def _forward(self, values: list[Any]) -> tuple[Any, Any, list[Any]]:
        layer = copy.deepcopy(self.layer)
        args = [fresh(v) for v in values[: self.n]]
        for (place, _), v in zip(self.places, values[self.n :], strict=True):
            _put(layer, place, fresh(v))
        return layer, self.box.run("forward", layer.forward, *args), args

    def _backward(self, values: list[Any], upstream: Any) -> tuple[Any, Any]:
        layer, out, _ = self._forward(values)
        if isinstance(out, tuple):
            raise Trouble("forward", "raises", f"forward returned {len(out)} values; expected one output of a layer")
        given = [np.ones(np.shape(out)) if upstream is None else upstream][: self.n_outputs]
        return layer, self.box.run("backward", layer.backward, *given)

    def _open(self, k: int, named: dict[Any, Any]) -> None:
        """Dicts among the inputs are no parameters of a layer."""

    def returned(self, values: list[Any]) -> Any:
        return self._backward(values, None)[1]

    def _outputs(self, values: list[Any]) -> list[Any]:
        _, out, args = self._forward(values)
        if isinstance(out, tuple) or out is None:
            words = "None" if out is None else f"{len(out)} values"
            raise Trouble("forward", "raises", f"forward returned {words}; expected one output of a layer")
        if values is self.values:
            self._note("forward", args)
        return [out]

    def _note(self, who: str, args: list[Any]) -> None:
        for name, mine, left in zip(self.names, self.values, args, strict=False):
            if isinstance(mine, np.ndarray) and not (isinstance(left, np.ndarray) and same(mine, left)):
                self.changed.add((who, name))

    def _gradients(self, values: list[Any], *upstreams: list[Array]) -> list[Gradients]:
        results = []
        for (u,) in upstreams:
            layer, _, args = self._forward(values)
            given = [fresh(u)][: self.n_outputs]
            grads = self.box.run("backward", layer.backward, *given)
            if given and not same(u, given[0]):
                self.changed.add(("backward", self.upstream_names[0]))
            if values is self.values:
                self._note("backward", args)
            own = self.wrt
            self.wrt = [i for i in own if i < self.n]
            matched = self.match(grads) if self.wrt else []
            self.wrt = own
            matched += [_get(layer, gradient) for _, gradient in self.places]
            names = [self.names[i] for i in own]
            self.alias = shared_memory(matched, names, [*self.upstream_names, *self.names], given + args)
            results.append([None if g is None else np.array(g) for g in matched])
        return results

    def source(self, i: int) -> str:
        if i < self.n:
            return super().source(i)
        return last_assignment(self.back, f"self.{self.places[i - self.n][1][0]}")


def _attributes(layer: Any) -> dict[str, Any]:
    """All attributes by name, also of a class with __slots__."""
    slots: list[str] = []
    for cls in type(layer).__mro__:
        own = vars(cls).get("__slots__", ())
        slots += [own] if isinstance(own, str) else own
    return {name: getattr(layer, name) for name in slots if hasattr(layer, name)} | getattr(layer, "__dict__", {})


def _arrays(layer: Any) -> Iterator[tuple[Place, Array]]:
    """All float arrays on a layer: attributes, and entries of attributes that are dicts or lists."""
    for name, value in _attributes(layer).items():
        entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, v in [((name,), value), *(((name, k), v) for k, v in entries)]:
            if is_float_array(v) or (isinstance(v, (float, np.floating)) and len(key) == 1):
                yield key, v


def _gradient_of(place: Place, after: dict[Place, Array], before: dict[Place, Array]) -> Place | None:
    """The place of the gradient of the array at a place; None if there is none, or it is a gradient itself."""
    others = [p for p in after if p != place]
    if isinstance(place[-1], int):  # params[0] and grads[0]
        lists = [
            p for p in others if p[0] != place[0] and p[-1] == place[-1] and _is_grad(p[0]) and not _is_grad(place[0])
        ]
        return lists[0] if lists else None
    if len(place) == 2 and _is_grad(place[0]):
        return None
    name = str(place[-1])
    for p in others:
        own = str(p[-1])
        if len(p) == 2 and isinstance(own, str) and _is_grad(p[0]) and matching([own], name):
            return p
    for p in others:
        own = str(p[-1])
        if own != name and matching([own], name) and (len(p) == len(place)) and p[:-1] == place[:-1]:
            return p
    return None


def _is_grad(name: Any) -> bool:
    return "grad" in str(name).lower() or str(name).lower().startswith(("dparam", "dweight"))


def _is_state(place: Place) -> bool:
    """True for statistics and gradients, which have no gradient of their own."""
    return any(str(k).startswith(("running", "moving", "d")) or _is_grad(k) for k in place)


def _get(layer: Any, place: Place) -> Any:
    value = _attributes(layer).get(place[0])
    return (
        value
        if len(place) == 1 or value is None
        else value[place[1]]
        if isinstance(value, list)
        else value.get(place[1])
    )


def _put(layer: Any, place: Place, value: Array) -> None:
    """Set a parameter, also where another attribute holds the same array."""
    old = _get(layer, place)
    for other, array in list(_arrays(layer)):
        if array is old or other == place:
            new = value if is_float_array(old) else float(value)
            if len(other) == 1:
                setattr(layer, str(other[0]), new)
            else:
                _attributes(layer)[str(other[0])][other[-1]] = new


# ------------------------------------------------------------------------------------------------------- construction

SIZES = (4, 5, 3)  # features in, features out, and what comes behind


def made(cls: type) -> Any:
    """An instance of a class, None if that fails; sizes and parameters that its constructor asks for are guessed."""
    try:
        required = [
            p for p in inspect.signature(cls).parameters.values()
            if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]  # fmt: skip
    except (TypeError, ValueError):
        return None
    r = np.random.default_rng(0)
    sizes = iter(SIZES)
    args: list[Any] = []
    for p in required:
        name = p.name.lower()
        if name in ("w", "weight", "weights"):
            args.append(r.standard_normal(SIZES[:2]))
        elif name in ("b", "bias"):
            args.append(r.standard_normal(SIZES[1]))
        elif name in ("gamma", "beta", "g", "scale", "shift", "alpha", "a"):
            args.append(r.uniform(0.5, 1.5, SIZES[0]))
        elif name in ("p", "eps", "rate", "ratio", "slope", "negative_slope", "keep_prob", "dropout_ratio"):
            args.append(0.5)
        else:
            args.append(next(sizes, 3))
    try:
        return cls(*args)
    except Exception:  # whatever a constructor may raise: its arguments can't be guessed
        return None


def shaken(layer: Any) -> Any:
    """The layer with its parameters moved a little: biases start at zero, and hide what is multiplied by them."""
    r = np.random.default_rng(1)
    for place, value in list(_arrays(layer)):
        if is_float_array(value) and not _is_state(place):
            _put(layer, place, value + 0.1 * r.standard_normal(value.shape))
    return layer


def inputs(layer: Any) -> list[tuple[Array]]:
    """Inputs, one for each case, of a size that suits the layer's parameters; none if it has none."""
    shapes = [v.shape for p, v in _arrays(layer) if is_float_array(v) and not _is_state(p)]
    r = np.random.default_rng(2)
    largest: tuple[int, ...] = max(shapes, key=len, default=())
    if len(largest) == 4:
        return [(r.standard_normal(s),) for s in ((3, largest[1], 7, 6), (1, largest[1], 5, 8))]
    return [(r.standard_normal((n, largest[0])),) for n in (3, 1, 5)] if largest else []
