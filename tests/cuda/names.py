"""What the installed CuPy has: writes cupy.json, by which the stand-in for CuPy is as narrow as CuPy itself.

    python -m tests.cuda.names        (needs CuPy, no GPU)

Signatures are lists of "name" (required), "name=" (optional), "*name", "**name", and "*" before keyword-only ones.
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

FILE = Path(__file__).with_name("cupy.json")


def signature(thing: object) -> list[str] | None:
    """A callable's parameters; None if they can't be found out."""
    try:
        parameters = inspect.signature(thing).parameters.values()
    except (TypeError, ValueError):  # compiled: its docstring begins with it
        found = re.match(r"[\w.]+\((?:self(?:, )?)?(.*)\)(?: ->.*)?$", (thing.__doc__ or "").split("\n")[0])
        return found and [re.sub(r"=.*", "=", part.split(" ")[-1]) for part in found[1].split(", ") if part]
    names, star = [], False
    for p in parameters:
        star |= p.kind is p.VAR_POSITIONAL
        if p.kind is p.KEYWORD_ONLY and not star:
            names, star = [*names, "*"], True
        prefix = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        names.append(f"{prefix}{p.name}{'=' if p.default is not p.empty else ''}")
    return names


def names() -> dict[str, object]:
    """All that the stand-in has to know of CuPy."""
    import cupy

    public = {n: getattr(cupy, n) for n in dir(cupy) if not n.startswith("_")}
    of_array = {n: getattr(cupy.ndarray, n) for n in dir(cupy.ndarray)}
    methods = {n: v for n, v in of_array.items() if not n.startswith("_") and callable(v)}
    functions = {n: v for n, v in public.items() if callable(v) and not isinstance(v, (type, cupy.ufunc))}
    return {
        "version": cupy.__version__,
        "ufuncs": {n: [v.nin, v.nout] for n, v in public.items() if isinstance(v, cupy.ufunc)},
        "ufunc": [n for n in dir(cupy.add) if not n.startswith("_")],
        "functions": {n: s for n, v in functions.items() if (s := signature(v)) is not None},
        "others": [n for n in public if n not in functions and not isinstance(public[n], cupy.ufunc)],
        "methods": {n: s for n, v in methods.items() if (s := signature(v)) is not None},
        "attributes": [n for n, v in of_array.items() if not n.startswith("_") and not callable(v)],
        "operators": [n for n in of_array if n.startswith("__")],
        "flags": [n for n in dir(cupy._core.flags.Flags) if not n.startswith("_")],
    }


if __name__ == "__main__":
    lines = [f" {json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in names().items()]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{FILE}: {FILE.stat().st_size:,} bytes, of CuPy {names()['version']}")
