"""The subject of a check, in one form: outputs = forward(values), gradients = pull(values, upstream).

Plain NumPy functions are made subjects in tinygen.gradcheck.plain, those of tensors in tinygen.gradcheck.adapters.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinygen.gradcheck.sandbox import Sandbox, Trouble
from tinygen.gradcheck.values import describe, float64, is_float_array, kind, output_array

Array = Any
Gradients = list[Any]  # for each differentiable argument an array, or None


class Subject:
    """Something with a gradient. Subclasses implement `_outputs` and `_gradients`.

    Attributes:
        name: for the report.
        names, values: all arguments; float arrays as float64, never handed to foreign code themselves.
        wrt: the positions of those whose gradients are checked.
        outputs: the names of the outputs; upstream: False where a loss fixes the upstream gradient to 1.
        changed: what foreign code changed that isn't its own: (who, what).
        probing: an exception of foreign code, whatever it is, becomes a Trouble: it refuses these values.
    """

    upstream = True
    probing = settled = False

    def __init__(self, name: str, names: Sequence[str], values: Sequence[Any]) -> None:
        self.name, self.names = name, list(names)
        self.values = [float64(v) for v in values]
        self.wrt = [i for i, v in enumerate(self.values) if is_float_array(v)]
        self.outputs = ["out"]
        self.changed: set[tuple[str, str]] = set()
        self.box = Sandbox(None)
        self.alias: list[str] = []
        self.remarks: list[str] = []  # notes for the report
        self.absent = "backward returns None: is the return statement missing?"  # said where there is no gradient

    def settle(self) -> None:
        """Find out, before the check, by which arguments there are gradients. May be called again."""
        if not (self.settled or self.probing):
            self.settled = True
            self._settle()

    def _settle(self) -> None:
        """Set wrt, and change the values' types where that makes them differentiable."""

    def functions(self) -> list[Callable[..., Any]]:
        """The functions under test, as far as their source may be read."""
        return []

    def unchecked(self) -> str:
        """The reason why nothing could be compared."""
        if self.wrt:
            return "the error bounds of the finite differences are wider than the gradients (float16? noise?)"
        kinds = ", ".join(f"{n} is {kind(v)}" for n, v in zip(self.names, self.values, strict=True)) or "no arguments"
        return f"no argument is an array of floats that has a gradient ({kinds})"

    def grad_name(self, i: int) -> str:
        """The name of the gradient by argument i, such as "dw"."""
        return f"d{self.names[i]}"

    def forward(self, values: list[Any]) -> list[Array]:
        """All outputs, as float64 (or complex) arrays."""
        outs = self._call(self._outputs, values)
        return [
            o if isinstance(o, np.ndarray) and o.dtype.kind in "fc" and o.itemsize >= 8 else output_array(o)
            for o in outs
        ]

    def flat(self, values: list[Any]) -> Array:
        """All outputs as one vector."""
        outs = self.forward(values)
        return outs[0].ravel() if len(outs) == 1 else np.concatenate([o.ravel() for o in outs])

    def pull(self, values: list[Any], *upstreams: list[Array]) -> list[Gradients]:
        """One forward run, then one backward run for each upstream gradient (one array for each output)."""
        return self._call(self._gradients, values, *upstreams)

    def _outputs(self, values: list[Any]) -> list[Any]:
        raise NotImplementedError

    def _gradients(self, values: list[Any], *upstreams: list[Array]) -> list[Gradients]:
        raise NotImplementedError

    def _call(self, run: Callable[..., Any], *args: Any) -> Any:
        try:
            return run(*args)
        except Exception as e:
            if isinstance(e, Trouble) or not self.probing:
                raise
            stage = "forward" if run == self._outputs else "backward"
            raise Trouble(stage, "raises", f"{self.name} raised {type(e).__name__}: {e}") from e

    def at(self, values: list[Any] | None = None) -> Subject:
        """A probe: the same functions at other values (its own if left out), which they may refuse by a Trouble."""
        other = copy.copy(self)
        other.values, other.changed, other.probing = self.values if values is None else values, set(), True
        return other

    def source(self, i: int) -> str:
        """`file:line: text` of the last place that sets the gradient of argument i, where the source is known."""
        return ""

    def culprit(self, who: str, what: str) -> str:
        """`file:line: text` of where `who` changes `what`, where the source is known."""
        return ""

    def describe(self) -> str:
        """The arguments' shapes and plain values in words."""
        return describe(self.names, self.values)
