"""Drawing from an autoregressive model, value by value."""

from __future__ import annotations

import numpy as np

from tinygen.kernels import library

SAMPLER_LAYERS = ("linear", "linear from", "copy", "relu", "elu", "tanh", "sigmoid", "add", "sub", "mul", "gated")


def sample(program, scaled, uniform, state, x, first, last, known, temperature):
    """See `tinygen.sampling.sampler.Sampler.run`: changes state and x in place; -1, or the value that can't be drawn.

    program: see `tinygen.sampling.program`.
    """
    s, levels = program, len(scaled)
    numbers = s.mixtures * (1 + 2 * s.colors + s.colors * (s.colors - 1) // 2) or levels
    if not library.accepts(state, s.weights, scaled) or not isinstance(state, np.ndarray):
        return NotImplemented
    n, values, kernel_arrays = len(state), len(s.places), {}
    for name, a, ctype, dtype, shape in (
        ("layers", s.layers, "tg_layer[]", np.int64, (len(s.layers), 8)),
        ("runs", s.runs, "int64_t[]", np.int64, (len(s.runs), 2)),
        ("weights", s.weights, "char[]", state.dtype, (len(s.weights),)),
        ("steps", s.steps, "tg_step[]", np.int32, (len(s.steps), 4)),
        ("starts", s.starts, "int64_t[]", np.int64, (values + 1,)),
        ("places", s.places, "int32_t[]", np.int32, (values,)),
        ("scaled", scaled, "char[]", state.dtype, (levels,)),
        ("results", s.results, "int32_t[]", np.int32, (values, numbers)),
        ("uniform", uniform, "double[]", np.float64, (values, n)),
        ("state", state, "char[]", state.dtype, (n, s.size)),
        ("x", x, "uint8_t[]", np.uint8, (n, values)),
    ):
        if a.shape != shape or a.dtype != dtype or not (a.flags.c_contiguous and a.flags.aligned):
            raise ValueError(f"sample: {name} must be {np.dtype(dtype)} {shape} in C order, got {a.dtype} {a.shape}")
        kernel_arrays[name] = library.ffi.from_buffer(ctype, a, require_writable=name in ("state", "x"))
    sizes = (n, values, levels, s.size, len(s.layers), len(s.runs), len(s.steps), len(s.weights), s.mixtures, s.colors)
    struct = library.ffi.new("tg_sampler *", (*sizes, first, last, known, temperature))
    return -library.call("tg_sample", state, struct, *kernel_arrays.values()) - 1
