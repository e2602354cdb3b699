"""Is a gradient right? And if not, why?

    check(fn, inputs)                      a function of tinygen Tensors
    check_pair(forward, backward, args)    plain NumPy, as in coursework; no tinygen types needed
    check_loss(loss, args)                 loss(x, y) -> loss, dx
    check_module(module, inputs)           a tinygen, PyTorch, ... module, of any size

The files from the bottom; each imports only those before it:

    numeric     finite differences with error bounds
    report      GradcheckReport and its problems
    source      names and lines in source code
    sandbox     runs foreign functions
    values      arguments and gradients as values
    subject     Subject: anything that has a gradient
    plain       subjects of plain NumPy functions
    adapters    subjects of tensors, tinygen's and others'
    evidence    all that is known of a wrong gradient
    contract    changed arguments, answers that vary, None
    compare     one gradient against finite differences
    verdict     report_on(subject): right or wrong
    shapes      names of sizes, smaller shapes that still fail
    causes/     the table of what people get wrong: guess, one file for each kind, table
    __init__    the four functions above
    arguments   for functions, guessed from the names of their parameters
    recipes     arguments for the layers of coursework
    layers      subjects of layer objects
    targets     everything in a file that has a gradient
    command     `tinygen gradcheck FILE`
    plugin      pytest's
    causal      which output sees which input
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinygen.gradcheck.causes.table import diagnose
from tinygen.gradcheck.plain import LossSubject, PairSubject
from tinygen.gradcheck.report import Problem, GradcheckError, GradcheckReport
from tinygen.gradcheck.verdict import report_on

__all__ = ["GradcheckError", "GradcheckReport", "Problem", "check", "check_loss", "check_module", "check_pair"]


def check(fn: Callable[..., Any], inputs: Sequence[Any], order: int = 1, name: str = "", library: str | None = None,
          rng: np.random.Generator | None = None) -> GradcheckReport:  # fmt: skip
    """Check the gradients of a function of Tensors by finite differences in float64.

    Args:
        fn: takes the inputs, returns a Tensor or several.
        inputs: arrays and Tensors of floats are checked, in float64; everything else is passed on as it is.
        order: 2 checks the gradients' gradients as well, by the inputs and by the upstream gradient (tinygen only).
        library: whose tensors fn takes: "tinygen", "torch", "jax", "autograd", "needle" or "minitorch". If left out,
            that of the inputs; tinygen for NumPy arrays.
        rng: draws the upstream gradient and the directions; default_rng(0) if left out.

    Returns: the report, if all gradients are right.

    Raises:
        GradcheckError: a gradient is wrong, or fn could not be run; the text names fn, the argument, the worst element
            and, where it can, why.
        ValueError: order or library is unknown.
    """
    from tinygen.gradcheck.adapters import TensorSubject, gradient_of, subject_of

    rng = rng or np.random.default_rng(0)
    subject = subject_of(fn, inputs, name, library)
    if order not in (1, 2) or (order == 2 and not isinstance(subject, TensorSubject)):
        raise ValueError(f"check: order must be 1, or 2 for functions of tinygen tensors, got {order}")
    report = report_on(subject, rng, diagnose).raise_if_wrong()
    if order == 2 and isinstance(subject, TensorSubject):
        upstream = [rng.standard_normal(o.shape) for o in subject.forward(subject.values)]
        report_on(gradient_of(subject, upstream), rng, diagnose).raise_if_wrong()
    return report


def check_module(module: Any, inputs: Sequence[Any], loss: Callable[..., Any] | None = None,
                 rng: np.random.Generator | None = None) -> GradcheckReport:  # fmt: skip
    """Check a module of tinygen or PyTorch: the gradients of all its parameters and float inputs, in float64.

    Random directions first: a module of 100,000 right parameters takes a few forward passes for each of its tensors; a
    wrong tensor is searched by halving. A copy is checked; the module keeps its parameters, buffers and generators.

    Args:
        inputs: of `module(*inputs)`.
        loss: takes the module's output; its result is differentiated instead.

    Raises: as check.
    """
    from tinygen.gradcheck.adapters import module_of

    return report_on(module_of(module, inputs, loss), rng, diagnose, budget=4.0).raise_if_wrong()


def check_pair(forward: Callable[..., Any], backward: Callable[..., Any], args: Sequence[Any], name: str = "",
               rng: np.random.Generator | None = None, limit: float | None = 10.0) -> GradcheckReport:  # fmt: skip
    """Check a plain NumPy forward/backward pair. Never changes args, never raises for a wrong gradient.

    Args:
        forward: forward(*args) -> out, cache (or several outputs and a cache, or out alone).
        backward: backward(dout, cache) -> one gradient for each float array among the args, in their order; or
            backward(dout, *args) where forward returns no cache.
        args: arrays (float ones are checked, in float64), dicts of parameters, numbers.
        limit: seconds that one call may take.
    """
    return report_on(PairSubject(forward, backward, args, name, limit), rng, diagnose)


def check_loss(loss: Callable[..., Any], args: Sequence[Any], wrt: Sequence[str] | None = None, name: str = "",
               rng: np.random.Generator | None = None, limit: float | None = 10.0) -> GradcheckReport:  # fmt: skip
    """Check a function that returns a loss and its gradients: `loss(x, y) -> loss, dx`, or `-> loss, {"W1": ...}`.

    Args:
        wrt: names of the checked arguments; if left out, the first float arrays, as many as there are gradients.
        The rest as in check_pair.
    """
    return report_on(LossSubject(loss, args, wrt, name, limit), rng, diagnose)
