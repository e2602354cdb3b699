"""A stand-in for CuPy on a machine without a GPU: NumPy arrays behind CuPy's interface, and no wider than it.

`install` puts it in the place of the module cupy. It has only the names and keywords of CuPy that cupy.json lists, and
is as narrow where CuPy differs from NumPy: NumPy arrays and lists are refused; results of elementwise functions are in
C order, whatever their inputs' order; reductions give 0-d arrays; an index out of range wraps around, and one that
names an element twice in an assignment is an error here, since its result isn't defined there; new memory isn't zero.
Addresses are those of the arrays in the CPU's memory, on which the emulated kernels run.
"""

from __future__ import annotations

import functools
import json
import operator
import sys
import time
import types
from typing import Any

import numpy as np

from tests.cuda.names import FILE

HAS = json.loads(FILE.read_text())
_TAKES_HOST_ARRAYS = {"array", "asarray", "asanyarray", "ascontiguousarray"}
_MAKES_VIEWS = {"transpose", "reshape", "swapaxes", "squeeze", "ravel", "view", "diagonal", "moveaxis", "broadcast_to",
                "expand_dims", "flip", "rollaxis", "asarray", "ascontiguousarray"}  # fmt: skip
_INPLACE_AT = {"add", "subtract", "maximum", "minimum", "bitwise_and", "bitwise_or", "bitwise_xor"}


class Refused(TypeError):
    """What CuPy would refuse, or answer with something undefined."""


def _bound(name: str, parameters: list[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """TypeError unless a call fits a signature as cupy.json writes it."""
    positional: list[str] = []
    for p in parameters:
        if p.startswith("*"):
            break
        positional.append(p.rstrip("="))
    many = any(p.startswith("*") and p not in ("*",) and not p.startswith("**") for p in parameters)
    known = {p.strip("=*") for p in parameters}
    if len(args) > len(positional) and not many:
        raise Refused(f"cupy.{name} takes {len(positional)} positional arguments, got {len(args)}")
    if (unknown := set(kwargs) - known) and not any(p.startswith("**") for p in parameters):
        raise Refused(f"cupy.{name} has no argument {min(unknown)}")


def _host(name: str, value: Any) -> Any:
    """An argument for NumPy; NumPy arrays are refused."""
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, np.ndarray):
        raise Refused(f"cupy.{name}: Unsupported type <class 'numpy.ndarray'>")
    if isinstance(value, (list, tuple)):
        return type(value)(_host(name, v) for v in value)
    return value


def _poisoned(host: np.ndarray) -> np.ndarray:
    host[...] = np.nan if host.dtype.kind == "f" else 77 if host.dtype.kind in "iu" else True
    return host


def _device(result: Any, sources: tuple[Any, ...] = ()) -> Any:
    """What NumPy gave as a device array; a view of one of the sources refers to it."""
    if isinstance(result, (tuple, list)):
        return type(result)(_device(r, sources) for r in result)
    if not isinstance(result, (np.ndarray, np.generic)):
        return result
    out = ndarray._of(np.asarray(result))
    for source in sources:
        if isinstance(source, ndarray) and out._host is source._host:
            return source
        if isinstance(source, ndarray) and np.may_share_memory(out._host, source._host):
            out.base = source if source.base is None else source.base
    return out


class _Memory:
    """What `array.data` is: where the array begins."""

    def __init__(self, ptr: int) -> None:
        self.ptr = ptr


class _Flags:
    def __init__(self, flags: Any) -> None:
        self._flags = flags

    def __getattr__(self, name: str) -> bool:
        if name not in HAS["flags"]:
            raise AttributeError(f"cupy's flags have no {name}")
        return getattr(self._flags, name)


class ndarray:
    """The stand-in for cupy.ndarray. Not a numpy.ndarray, and never converted to one but by get()."""

    __array_priority__ = 100
    _host: np.ndarray
    base: ndarray | None

    def __init__(self, shape: Any, dtype: Any = float) -> None:
        self._host, self.base = _poisoned(np.empty(shape, dtype)), None

    @classmethod
    def _of(cls, host: np.ndarray) -> ndarray:
        self = object.__new__(cls)
        self._host, self.base = host, None
        return self

    @property
    def data(self) -> _Memory:
        return _Memory(self._host.ctypes.data if self._host.size else 0)

    @property
    def flags(self) -> _Flags:
        return _Flags(self._host.flags)

    @property
    def T(self) -> ndarray:
        return self.transpose()

    def __getattr__(self, name: str) -> Any:
        if name not in HAS["methods"] or name.startswith("__"):
            raise AttributeError(f"cupy.ndarray has no {name}")
        return functools.partial(self._method, name)

    def _method(self, name: str, *args: Any, **kwargs: Any) -> Any:
        _bound(f"ndarray.{name}", HAS["methods"][name], args, kwargs)
        if name in _MAKES_VIEWS:
            kwargs.pop("copy", None)
        kwargs = {k: _host(name, v) for k, v in kwargs.items()}
        result = getattr(self._host, name)(*[_host(name, a) for a in args], **kwargs)
        return result if name in ("item", "tolist", "tobytes") else _device(result, (self,))

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> np.ndarray:
        return np.array(self._host, order=order)

    def item(self) -> Any:
        return self._host.item()

    def copy(self, order: str = "C") -> ndarray:
        return ndarray._of(self._host.copy(order=order))

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise Refused("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

    def __array_function__(self, function: Any, kinds: Any, args: Any, kwargs: Any) -> Any:
        try:
            own = functools.reduce(getattr, [*function.__module__.split(".")[1:], function.__name__], cupy)
        except AttributeError:
            return NotImplemented
        return own(*args, **kwargs)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if not hasattr(cupy, ufunc.__name__) or method not in ("__call__", "at"):
            return NotImplemented
        if "out" in kwargs:
            (kwargs["out"],) = kwargs["out"]
        own = getattr(cupy, ufunc.__name__)
        return (own.at if method == "at" else own)(*inputs, **kwargs)

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        return bool(self._host)

    def __int__(self) -> int:
        return int(self._host)

    def __float__(self) -> float:
        return float(self._host)

    def __repr__(self) -> str:
        return f"<cupy.ndarray {self.dtype} {self.shape}>"

    def __getitem__(self, index: Any) -> Any:
        return _device(self._host[_index(index, self.shape, False)], (self,))

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(value, (list, tuple)):
            raise Refused("cupy.ndarray.__setitem__: Unsupported type <class 'list'>")
        self._host[_index(index, self.shape, True)] = _host("ndarray.__setitem__", value)


def _index(index: Any, shape: tuple[int, ...], assigned: bool) -> Any:
    """An index for NumPy: integer arrays wrap around; in an assignment they name nothing twice."""
    parts = list(index) if isinstance(index, tuple) else [index]
    parts = [p._host if isinstance(p, ndarray) else np.asarray(p) if isinstance(p, list) else p for p in parts]
    taken = sum(p.ndim if _is_mask(p) else p is not None and p is not Ellipsis for p in parts)
    axis, advanced = 0, []
    for i, p in enumerate(parts):
        if p is Ellipsis:
            axis += len(shape) - taken
        elif _is_mask(p):
            axis += p.ndim
        elif p is not None:
            if isinstance(p, np.ndarray):
                parts[i] = p = p.astype(int) % max(shape[axis], 1)
                advanced.append(p)
            axis += 1
    if assigned and advanced:
        named = np.stack([a.ravel() for a in np.broadcast_arrays(*advanced)])
        if np.unique(named, axis=1).shape != named.shape:
            raise Refused("cupy.ndarray.__setitem__: an element named twice gets any of its values")
    return tuple(parts) if isinstance(index, tuple) else parts[0]


def _is_mask(p: Any) -> bool:
    return isinstance(p, np.ndarray) and p.dtype == bool


class ufunc:
    """The stand-in for an elementwise function."""

    def __init__(self, name: str) -> None:
        self.name, (self.nin, self.nout) = name, HAS["ufuncs"][name]
        self._numpy = getattr(np, {"fix": "trunc"}.get(name, name))

    def __call__(self, *args: Any, out: Any = None, dtype: Any = None, casting: str = "same_kind") -> Any:
        if any(isinstance(a, (list, tuple)) for a in args):
            raise Refused(f"cupy.{self.name}: Unsupported type <class 'list'>")
        if len(args) > self.nin:
            *args, out = args  # type: ignore[assignment]
        if not any(isinstance(a, ndarray) for a in (*args, out)):
            raise Refused(f"cupy.{self.name} of no cupy.ndarray")
        if out is not None and not isinstance(out, ndarray):
            raise Refused(f"cupy.{self.name}: Output arguments type must be cupy.ndarray")
        with np.errstate(all="ignore"):
            result = self._numpy(*[_host(self.name, a) for a in args], dtype=dtype, casting=casting, order="C",
                                 out=None if out is None else out._host)  # fmt: skip
        return out if out is not None else _device(result)

    def at(self, a: ndarray, indices: Any, b: Any = None) -> None:
        if self.name not in _INPLACE_AT:
            raise Refused(f"cupy.{self.name} has no at")
        self._numpy.at(a._host, _index(indices, a.shape, False), _host(f"{self.name}.at", b))


def _function(name: str) -> Any:
    parameters = HAS["functions"][name]

    def call(*args: Any, **kwargs: Any) -> Any:
        _bound(name, parameters, args, kwargs)
        kwargs.pop("blocking", None)
        if name in _TAKES_HOST_ARRAYS:
            fresh = [a._host if isinstance(a, ndarray) else np.array(a) for a in args[:1]]  # never the caller's memory
            return _device(getattr(np, name)(*fresh, *args[1:], **kwargs), args)
        if isinstance(args[0] if args else None, list) and any(isinstance(a, (int, float)) for a in args[0]):
            raise Refused(f"cupy.{name}: Unsupported type <class 'list'>")
        with np.errstate(all="ignore"):
            result = getattr(np, name)(
                *[_host(name, a) for a in args], **{k: _host(name, v) for k, v in kwargs.items()}
            )
        if name in ("empty", "empty_like"):
            _poisoned(result)
        if isinstance(result, np.ndarray) and name in ("where", "clip"):
            result = np.ascontiguousarray(result) if result.ndim else result
        return _device(result, args if name in _MAKES_VIEWS else ())

    return call


class _Ogrid:
    def __getitem__(self, index: Any) -> Any:
        return [_device(a) for a in np.ogrid[index]] if isinstance(index, tuple) else _device(np.ogrid[index])


class CUDARuntimeError(RuntimeError):
    """CUDA's error, with its number."""

    def __init__(self, status: int) -> None:
        super().__init__(f"CUDA error {status}")
        self.status = status


class _Event:
    """A moment on the device."""

    def record(self, stream: Any = None) -> None:
        self.time = time.perf_counter()

    def synchronize(self) -> None:
        pass


def _linalg() -> types.SimpleNamespace:
    """CuPy's LAPACK: stacks of matrices; the two of an equation must be as many, for it doesn't broadcast."""

    def solve(a: Any, b: Any) -> Any:
        if a.ndim != b.ndim or a.shape[:-1] != b.shape[:-1]:
            raise Refused(f"cupy.linalg.solve: shapes {a.shape} and {b.shape}")
        return _device(np.linalg.solve(_host("solve", a), _host("solve", b)))

    def of_one(name: str) -> Any:
        return lambda a: _device(tuple(r) if isinstance(r := getattr(np.linalg, name)(_host(name, a)), tuple) else r)

    return types.SimpleNamespace(solve=solve, **{name: of_one(name) for name in ("inv", "slogdet", "cholesky")})


def _module() -> types.ModuleType:
    module = types.ModuleType("cupy")
    for name in HAS["ufuncs"]:
        if hasattr(np, name) or name == "fix":
            setattr(module, name, ufunc(name))
    for name in HAS["functions"]:
        if hasattr(np, name):
            setattr(module, name, _function(name))
    for name in HAS["others"]:
        value = getattr(np, name, None)
        if isinstance(value, (float, int, type)):
            setattr(module, name, value)
    module.ndarray, module.ufunc, module.ogrid = ndarray, ufunc, _Ogrid()  # type: ignore[attr-defined]
    module.linalg = _linalg()  # type: ignore[attr-defined]
    module.__version__ = HAS["version"]  # type: ignore[attr-defined]
    stream = types.SimpleNamespace(ptr=0, synchronize=lambda: None)
    pool = types.SimpleNamespace(free_all_blocks=lambda: None)
    module.get_default_memory_pool = lambda: pool  # type: ignore[attr-defined]
    module.cuda = types.SimpleNamespace(  # type: ignore[attr-defined]
        get_current_stream=lambda: stream,
        is_available=lambda: True,
        runtime=types.SimpleNamespace(getDeviceCount=lambda: 1, CUDARuntimeError=CUDARuntimeError),
        Event=_Event,
        get_elapsed_time=lambda a, b: (b.time - a.time) * 1e3,
    )
    return module


def _operators() -> None:
    """Arithmetic and comparisons, as far as CuPy has them; in place too."""
    names = {"add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide", "pow": "power",
             "floordiv": "floor_divide", "mod": "remainder", "and": "bitwise_and", "or": "bitwise_or",
             "xor": "bitwise_xor", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal",
             "eq": "equal", "ne": "not_equal", "matmul": "matmul"}  # fmt: skip
    for short, name in names.items():
        for form in (f"__{short}__", f"__r{short}__", f"__i{short}__"):
            if form in HAS["operators"]:
                setattr(ndarray, form, _operator(form, name))
    ndarray.__neg__ = lambda a: cupy.negative(a)  # type: ignore[attr-defined]
    ndarray.__invert__ = lambda a: cupy.invert(a)  # type: ignore[attr-defined]
    ndarray.__abs__ = lambda a: cupy.absolute(a)  # type: ignore[attr-defined]
    ndarray.__hash__ = None  # type: ignore[assignment]


def _operator(form: str, name: str) -> Any:
    def operate(a: ndarray, b: Any) -> Any:
        if getattr(type(b), "__array_ufunc__", 0) is None:
            return NotImplemented  # a Tensor's own turn
        fn = getattr(cupy, name)
        if form[2] == "i" and form != "__invert__":
            return fn(a, b, out=a)
        return fn(b, a) if form.startswith("__r") else fn(a, b)

    return operate


for _name in {*HAS["attributes"]} - {"base"}:
    if not hasattr(ndarray, _name):
        setattr(ndarray, _name, property(operator.attrgetter(f"_host.{_name}")))
cupy = _module()
_operators()


def install(monkeypatch: Any) -> types.ModuleType:
    """Within a test, cupy is the stand-in."""
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return cupy
