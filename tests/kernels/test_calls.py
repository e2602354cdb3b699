"""Between Python and the kernels: whatever arrays come, the definition's answer or a clear error, never a crash."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygen
from tinygen import kernels, nn
from tinygen.geometry import Geometry
from tinygen.ops.activations import leaky_relu, relu, relu_backward
from tinygen.ops.attention import attention, attention_backward
from tinygen.ops.conv import conv2d, conv2d_weight, conv_transpose2d
from tinygen.ops.coupling import affine_coupling, channel_affine
from tinygen.ops.elementwise import add, exp, mul
from tinygen.ops.join import cat, cat_backward
from tinygen.ops.linalg import linear, matmul
from tinygen.ops.loss import cross_entropy, cross_entropy_backward
from tinygen.ops.normalize import batch_norm, group_norm
from tinygen.ops.recurrent import gated_activation, lstm
from tinygen.ops.shape import reshape
from tinygen.pool import empty

SHARE = min(1.0, int(os.environ.get("TINYGEN_CASES", "200")) / 200)  # of the examples, for builds with sanitizers

ROOT = Path(__file__).parents[2]
FLOATS = (np.float32, np.float64)
ERRORS = (ValueError, TypeError)


def outputs_of(result):
    return list(result) if isinstance(result, tuple) else [result]


def both(function, *args):
    """What the kernel and the definition answer: lists of arrays, or the exceptions."""
    found = []
    for mode in (tinygen.enable_grad, tinygen.reference):
        with mode():
            try:
                found.append(outputs_of(function(*args)))
            except Exception as error:
                found.append(error)
    return found


def agree(kernel, definition, tolerance=1e-3):
    if isinstance(kernel, Exception) or isinstance(definition, Exception):
        return type(kernel) is type(definition)
    return all(
        np.shape(a) == np.shape(b) and np.asarray(a).dtype == np.asarray(b).dtype
        and np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)
        for a, b in zip(kernel, definition, strict=True)
    )  # fmt: skip


# ---------------------------------------------------------------------------------- arrays of any kind, the same answer


def _misaligned(a):
    raw = np.zeros(a.nbytes + 1, np.uint8)[1:]
    out = np.frombuffer(raw, a.dtype).reshape(a.shape)
    out[...] = a
    return out


def _with_gaps(a):
    wide = np.full([2 * n for n in a.shape], np.nan, a.dtype)
    out = wide[tuple(slice(None, None, 2) for _ in a.shape)]
    out[...] = a
    return out


def _read_only(a):
    out = a.copy()
    out.flags.writeable = False
    return out


def _backwards(a):
    flip = tuple(slice(None, None, -1) for _ in a.shape)
    return a[flip].copy()[flip]


def _repeated(a):
    """Equal rows that are one row in memory."""
    return np.broadcast_to(a[:1], a.shape)


KINDS = {
    "plain": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "last axis first": lambda a: np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1) if a.ndim > 1 else a,
    "backwards": _backwards,
    "with gaps": _with_gaps,
    "misaligned": _misaligned,
    "read-only": _read_only,
    "stride 0": _repeated,
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
}
GENERATOR = np.random.default_rng(0)


def normal(*shape):
    return GENERATOR.standard_normal(shape)


LABELS = GENERATOR.integers(0, 7, (5, 6))
CALLS = {  # name -> (function of the float arrays, those arrays); large enough that a kernel is used
    "conv2d": (
        lambda x, w, b: conv2d(x, w, b, Geometry((2, 1), (1, 0))),
        (normal(2, 3, 6, 5), normal(4, 3, 3, 2), normal(4)),
    ),
    "masked": (
        lambda x, w, b: conv2d(x, w, b, Geometry((1, 1), (1, 1), (1, 1), "A", 3)),
        (normal(2, 6, 4, 5), normal(9, 6, 3, 3), normal(9)),
    ),
    "conv_transpose2d": (
        lambda y, w, b: conv_transpose2d(y, w, b, (6, 7), Geometry((2, 2), (1, 1))),
        (normal(2, 4, 3, 3), normal(4, 3, 3, 4), normal(3)),
    ),
    "conv2d_weight": (lambda x, y: conv2d_weight(x, y, (3, 2)), (normal(2, 3, 5, 5), normal(2, 4, 3, 4))),
    "linear": (linear, (normal(40, 41), normal(50, 41), normal(50))),
    "matmul": (matmul, (normal(40, 41), normal(41, 50))),
    "gated_activation": (gated_activation, (normal(3, 8, 4, 5),)),
    "cross_entropy": (lambda x: cross_entropy(x, LABELS), (normal(5, 7, 6),)),
    "cross_entropy_backward": (
        lambda x, g: cross_entropy_backward(x, LABELS, g),
        (normal(5, 7, 6), normal(5, 6)),
    ),
    "cat": (lambda x, y: cat(x, y, dim=1), (normal(40, 500, 2), normal(40, 50, 2))),
    "cat_backward": (lambda g: cat_backward(g, 50, 1), (normal(40, 500, 2),)),
    "affine_coupling": (lambda x, both: affine_coupling(x, both, 1), (normal(6, 4, 3, 5), normal(6, 6, 3, 5))),
    "channel_affine": (channel_affine, (normal(6, 4, 3, 5), normal(4), normal(4))),
    "attention": (lambda q, k, v: attention(q, k, v, 0.5), (normal(2, 3, 5), normal(2, 4, 5), normal(2, 4, 6))),
    "attention_backward": (
        lambda q, k, v, g: attention_backward(g, None, q, k, v, 0.5),
        (normal(2, 3, 5), normal(2, 4, 5), normal(2, 4, 6), normal(2, 3, 6)),
    ),
    "batch_norm": (lambda x, w, b: batch_norm(x, w, b, 1e-3), (normal(6, 4, 3, 5), normal(4), normal(4))),
    "group_norm": (
        lambda x, w, b, s: group_norm(x, w, b, 2, 1e-3, True, s),
        (normal(6, 4, 3, 5), normal(4), normal(4), normal(6, 4)),
    ),
    "lstm": (lstm, (normal(3, 5, 16), normal(16, 4), normal(5, 4), normal(5, 4))),
    "Row LSTM": (lambda x, w: lstm(x, w), (normal(2, 3, 4, 8), normal(8, 2, 1, 3))),
    "Diagonal LSTM": (lambda x, w: lstm(x, w, diagonal=-1), (normal(2, 3, 4, 8), normal(8, 2, 2, 1))),
    "tanh": (tinygen.tanh, (normal(70, 80),)),
    "add": (tinygen.ops.add, (normal(70, 80), normal(70, 80))),
}


calls, kinds_of_array = st.sampled_from(sorted(CALLS)), st.sampled_from(sorted(KINDS))


@given(calls, st.tuples(*[kinds_of_array] * 4), st.sampled_from(FLOATS))
@settings(max_examples=int(400 * SHARE))
def test_arrays_of_any_kind(name, kinds, dtype):
    function, arrays = CALLS[name]
    arrays = [KINDS[kind](a.astype(dtype)) for kind, a in zip(kinds, arrays, strict=False)]
    kept = [a.copy() for a in arrays]
    kernel, definition = both(function, *arrays)
    assert not isinstance(definition, Exception) or "big-endian" in kinds, definition
    assert agree(kernel, definition, 1e-3 if dtype == np.float32 else 1e-9), (kernel, definition)
    assert all((a == b).all() for a, b in zip(arrays, kept, strict=True))


@given(calls, st.data())
@settings(max_examples=300)
def test_wrong_dtypes_and_shapes(name, data):
    """One argument of another type, with an axis more, less, longer, shorter or empty: refused by name, or right."""
    function, arrays = CALLS[name]
    arrays = [a.astype(np.float32) for a in arrays]
    which = data.draw(st.integers(0, len(arrays) - 1))
    a, axis = arrays[which], data.draw(st.integers(0, arrays[which].ndim - 1))
    types = [a.astype(np.float64), a.astype(np.float16), a.astype(np.int32), a > 0]
    shapes = [
        a[None],
        a[0],
        np.concatenate([a, a], axis),
        np.delete(a, 0, axis),
        np.take(a, [], axis),
        a[:1].sum(),
    ]
    arrays[which] = data.draw(st.sampled_from(types + shapes))
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):  # the mean of no rows
        kernel, definition = both(function, *arrays)
    if isinstance(kernel, Exception):
        assert isinstance(kernel, (*ERRORS, IndexError)), repr(kernel)
        assert re.match(r"\w+\(.*\(.*\).*\): ", str(kernel)), kernel  # op(arguments' shapes): what is wrong
    elif not isinstance(definition, Exception):
        assert agree(kernel, definition), (kernel, definition)


integers = st.one_of(st.integers(-3, 9), st.sampled_from([-(2**63), -(2**31), 1 << 20]))
pairs = st.tuples(integers, integers)
sizes = st.integers(0, 6)
images = st.tuples(st.integers(0, 3), sizes, sizes, sizes)


def _windows(image, kernel, geometry):
    """How many windows fit, down and across; none where a step is none."""
    for n, k, s, p, d in zip(image, kernel, geometry.stride, geometry.padding, geometry.dilation, strict=True):
        yield (n + 2 * p - d * (k - 1) - 1) // s + 1 if s else 0


@given(images, images, st.none() | st.tuples(sizes), st.tuples(sizes, sizes), pairs, pairs, pairs,
       st.sampled_from([None, "A", "B"]), integers, st.sampled_from(FLOATS))  # fmt: skip
@settings(max_examples=int(600 * SHARE))
def test_fuzz_convolution(x, w, bias, size, stride, padding, dilation, mask, channels, dtype):
    """Straight to the kernels, with shapes that needn't fit: an error, or arrays of the promised shape."""
    arrays = [None if shape is None else np.ones(shape, dtype) for shape in (x, w, bias)]
    geometry = Geometry(
        stride, tuple(min(p, 1000) for p in padding), tuple(min(d, 1000) for d in dilation), mask, channels
    )
    for call, shape in (
        (lambda: kernels.conv.conv2d(*arrays, geometry), (x[0], w[0], *_windows(x[2:], w[2:], geometry))),
        (lambda: kernels.conv.conv_transpose2d(*arrays, size, geometry), (x[0], w[1], *size)),
        (lambda: kernels.conv.conv2d_weight(arrays[0], arrays[1], size, geometry)[0], (w[1], x[1], *size)),
    ):
        try:
            out = call()
        except ERRORS:
            continue
        assert out.shape == shape
        assert np.isfinite(out).all()


@given(
    st.tuples(*[sizes] * 3),
    st.tuples(*[sizes] * 2),
    st.integers(-1, 1),
    st.lists(integers, min_size=6, max_size=6),
)
@settings(max_examples=int(200 * SHARE))
def test_fuzz_lstm(x, weight, diagonal, shape):
    """A shape that doesn't belong to the arrays is refused."""
    z, u = np.ones((*x, 4 * weight[1])), np.ones((4 * weight[1], weight[1]))
    try:
        h, c, gates = outputs_of(kernels.recurrent.lstm(z, u, None, None, None, None, True, tuple(shape)))
    except (*ERRORS, OverflowError):
        return
    assert np.isfinite(h).all()
    assert np.isfinite(c).all()
    assert gates.shape == z.shape


@given(st.tuples(sizes, st.integers(1, 6), sizes), st.sampled_from("bBiqQf?"), st.integers(-2, 8),
       st.sampled_from(["plain", "Fortran", "backwards"]))  # fmt: skip
@settings(max_examples=int(200 * SHARE))
def test_fuzz_labels(shape, dtype, label, kind):
    x = normal(*shape).astype(np.float32)
    labels = KINDS[kind](np.full((shape[0], shape[2]), label).astype(dtype))
    kernel, definition = both(cross_entropy, x, labels)
    assert agree(kernel, definition)
    assert isinstance(kernel, (list, *ERRORS))
    wrong = dtype in "f?" or (labels.size and not 0 <= label < shape[1])
    assert isinstance(kernel, Exception) == bool(wrong)


def test_mapped_files_are_read_in_place(tmp_path):
    """Read-only pages of a file: a kernel that wrote there would be killed."""
    x, w = normal(2, 6, 5, 3).astype(np.float32), normal(3, 3, 3, 4).astype(np.float32)
    (tmp_path / "x").write_bytes(x.tobytes())
    (tmp_path / "w").write_bytes(w.tobytes())
    mapped = [np.memmap(tmp_path / n, np.float32, "r", shape=a.shape) for n, a in (("x", x), ("w", w))]
    images, weight = mapped[0].transpose(0, 3, 1, 2), mapped[1].transpose(3, 2, 0, 1)
    before = kernels.conversions()
    kernel, definition = both(conv2d, np.asarray(images), np.asarray(weight))
    assert agree(kernel, definition)
    assert kernels.conversions() == before


@st.composite
def arrays_in_any_order(draw, count):
    """Arrays of one shape, large enough for a kernel, each with its axes in an order of its own in memory."""
    shape = draw(st.lists(st.integers(2, 4), min_size=1, max_size=4))
    shape[draw(st.integers(0, len(shape) - 1))] *= 2049
    dtype, found = draw(st.sampled_from(FLOATS)), []
    for seed in range(count):
        axes = draw(st.permutations(range(len(shape))))
        memory = np.random.default_rng(seed).standard_normal([shape[i] for i in axes])
        found.append(memory.astype(dtype).transpose(np.argsort(axes)))
    return found


@settings(max_examples=40)
@given(arrays_in_any_order(2))
def test_elementwise_kernels_take_arrays_in_different_orders(arrays):
    g, x = arrays
    for function in (add, relu_backward):
        kernel, definition = both(function, g, x)
        assert agree(kernel, definition, 0)
    if kernels.available():
        assert np.argsort(kernel[0].strides).tolist() == np.argsort(x.strides).tolist()


@settings(max_examples=40)
@given(arrays_in_any_order(1))
def test_an_array_in_any_order_is_packed(arrays):
    (x,) = arrays
    packed = kernels.layout.packed(x)
    assert packed.flags.c_contiguous
    np.testing.assert_array_equal(packed, x)
    flat = (len(x), x[:1].size)
    np.testing.assert_array_equal(reshape(x, flat), np.reshape(x, flat))


# ----------------------------------------------------------------------------------------------- what is written


def adam_arrays(dtype=np.float32):
    return [normal(50, 30).astype(dtype) for _ in range(3)] + [abs(normal(50, 30)).astype(dtype)]


def run_adam(grad, p, m, v):
    """Whether the kernel ran: if not, it declines, and NumPy has the word, or it refuses."""
    try:
        return kernels.optim.adam([(grad, p, m, v)], 1, 1e-3, 0.9, 0.999, 1e-8, 0.0)
    except ValueError:
        return False


def test_adam_writes_p_m_and_v_alone():
    grad, p, m, v = adam_arrays()
    kept = grad.copy()
    arrays = [grad.T, p.T, m.T, v.T]
    assert run_adam(*arrays)
    assert (grad == kept).all()
    assert np.isfinite([p, m, v]).all()


@pytest.mark.parametrize("which", [1, 2, 3])
def test_adam_leaves_read_only_arrays_alone(which):
    arrays = adam_arrays()
    arrays[which].flags.writeable = False
    kept = arrays[which].copy()
    assert not run_adam(*arrays)
    assert (arrays[which] == kept).all()


@pytest.mark.parametrize(("one", "other"), [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)])
def test_adam_declines_arrays_that_overlap(one, other):
    """Two of them one place apart in the same memory: what is written would be read again."""
    arrays, room = adam_arrays(), np.ones(1501, np.float32)
    arrays[one], arrays[other] = room[:1500].reshape(50, 30), room[1:].reshape(50, 30)
    assert not run_adam(*arrays)
    assert (room == 1).all()


OTHERS = {
    "order": lambda a: a.T.copy().T,
    "shape": lambda a: a[:-1],
    "type": lambda a: a.astype(np.float64),
    "bytes": lambda a: a.astype(">f4"),
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("which", range(4))
def test_adam_declines_arrays_that_differ(which, other):
    arrays = adam_arrays()
    arrays[which] = OTHERS[other](arrays[which])
    kept = [a.copy() for a in arrays]
    assert not run_adam(*arrays)
    assert all((a == b).all() for a, b in zip(arrays, kept, strict=True))


# ------------------------------------------------------------------------------------------------ settings and failures


def test_threads_and_their_number():
    kernels.set_num_threads(3)
    assert kernels.get_num_threads() == 3
    for n in (0, -1):
        with pytest.raises(ValueError, match="n must be at least 1"):
            kernels.set_num_threads(n)
    assert kernels.get_num_threads() == 3


@pytest.mark.fault("K10")
@pytest.mark.parametrize("name", CALLS)
def test_no_memory_is_a_memory_error_that_names_the_kernel(name):
    function, arrays = CALLS[name]
    expected = outputs_of(function(*arrays))
    for n in range(1, 20):
        kernels.library.lib.tg_fail_allocation(n)
        try:
            got, error = outputs_of(function(*arrays)), None
        except MemoryError as e:
            got, error = outputs_of(function(*arrays)), e
        finally:
            kernels.library.lib.tg_fail_allocation(0)
        assert all(a.tobytes() == b.tobytes() for a, b in zip(got, expected, strict=True))
        if error is None:
            return
        assert "tg_" in str(error)
    pytest.fail("so many allocations?")


@given(st.lists(st.tuples(st.sampled_from([1 << 18, (1 << 18) + 3, 1 << 20, 70_000]), st.booleans()), max_size=40))
def test_the_pool_gives_no_memory_twice(requests):
    """Arrays of recycled memory, and views that outlive them, keep what was written to them."""
    alive = []
    for number, (count, keep) in enumerate(requests):
        a = empty((count,), np.float32)
        assert a.shape == (count,)
        assert a.flags.writeable
        a[:] = number
        alive.append((number, a[1::2][::-1] if number % 2 else a))
        del a
        if not keep:
            alive.pop(0)
        assert all((view == value).all() for value, view in alive)


LAYOUTS = {
    "C order": lambda a: a,
    "NHWC": lambda a: np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
    "with gaps": lambda a: np.repeat(a, 2, 1)[:, ::2],
    "backwards": lambda a: a[::-1].copy()[::-1],
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
    "misaligned": lambda a: np.frombuffer(b"." + a.tobytes(), a.dtype, offset=1).reshape(a.shape),
}


@pytest.mark.parametrize("other", ["C order", "NHWC"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_large_arrays_in_any_order(layout, other):
    """The short way to a kernel takes only what lies in memory alike; its results do so, too."""
    rng = np.random.default_rng(0)
    shape = (3, 8, 100, 120)
    a, b = (convert(rng.standard_normal(shape, np.float32)) for convert in (LAYOUTS[layout], LAYOUTS[other]))
    calls = (add, a, b), (mul, a, b), (exp, a), (relu, a), (leaky_relu, a, 0.2), (leaky_relu, a, np.float64(0.2))
    for op, *arguments in (*calls, (relu_backward, a, b, 0.0), (relu_backward, a, b, 0.5)):
        got = op(*arguments)
        with tinygen.reference():
            np.testing.assert_allclose(got, op(*arguments), rtol=1e-6)
        if layout == other == "NHWC":
            assert got.strides == a.strides


def test_large_leaves_begin_at_a_cache_line():
    """NumPy's own arrays begin 16 bytes after one, so that each of their vectors of 64 bytes is in two."""
    data = np.random.default_rng(0).standard_normal((4, 30, 30, 64)).astype(np.float32)
    dense = (data, data.transpose(0, 3, 1, 2), data.astype(np.int64))
    for array in (*dense, np.flip(data), data[:, ::2]):
        got = tinygen.tensor(array).numpy()
        assert got.dtype == array.dtype
        assert np.array_equal(got, array)
        assert not np.shares_memory(got, array)
        if any(array is a for a in dense):
            assert got.ctypes.data % 64 == 0
            assert got.strides == array.strides


@pytest.mark.fault("K06")
def test_a_forked_child_can_allocate():
    """Forked while another thread is in the pool of buffers: the child has the lock in its hands, or a new one."""
    program = """
        import os, threading
        import numpy as np
        from tinygen import pool
        inside, done = threading.Event(), threading.Event()
        def hold():
            with pool._lock:
                inside.set()
                done.wait()
        thread = threading.Thread(target=hold)
        thread.start()
        inside.wait()
        child = os.fork()
        if not child:
            pool.empty((1 << 20,), np.float32)[:] = 1
            os._exit(0)
        for _ in range(200):
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                break
            done.wait(0.05)
        else:
            os.kill(child, 9)
            status = "the child hangs"
        done.set()
        thread.join()
        print(status)
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == "0\n", done.stdout + done.stderr


@pytest.mark.fault("K11")
def test_without_a_compiler(tmp_path):
    """pip installs all the same; everything runs on the definitions, with one warning that says what to do."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "csrc", source / "csrc")
    shutil.copytree(ROOT / "tinygen", source / "tinygen", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    (source / "README.md").touch()
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-build-isolation",
        "--no-deps",
        "--no-index",
    ]
    environment = os.environ | {"CC": "/bin/false", "NVCC": "", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    site = tmp_path / "site"
    subprocess.run([*pip, "--target", str(site), str(source)], env=environment, check=True, capture_output=True)
    assert not list((site / "tinygen").glob("_native*.so"))
    program = """
        import sys, warnings
        sys.meta_path = [f for f in sys.meta_path if "editable" not in repr(f).lower()]  # no other tinygen
        import numpy as np
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            import tinygen
            from tinygen import kernels, nn
            assert not caught
            x = tinygen.tensor(np.ones((2, 3, 5, 5), np.float32), requires_grad=True)
            layer = nn.Conv2d(3, 4, 3, rng=np.random.default_rng(0))
            for _ in range(2):
                y = layer(x)
                tinygen.sum(y * y).backward()
        assert tinygen.__file__.startswith(sys.argv[1]), tinygen.__file__
        assert not kernels.available()
        print(len(caught), caught[0].category.__name__, caught[0].message)
        np.save(sys.argv[1] + "/y", y.numpy())
        np.save(sys.argv[1] + "/g", x.grad.numpy())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(site)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 RuntimeWarning tinygen: the C kernels were not built"), done.stdout
    assert "install a C compiler" in done.stdout
    x = tinygen.tensor(np.ones((2, 3, 5, 5), np.float32), requires_grad=True)
    y = nn.Conv2d(3, 4, 3, rng=np.random.default_rng(0))(x)
    for _ in range(2):
        tinygen.sum(y * y).backward(retain_graph=True)
    assert np.allclose(np.load(tmp_path / "y.npy"), y.numpy(), atol=1e-5)
    assert np.allclose(np.load(tmp_path / "g.npy"), x.grad.numpy(), atol=1e-4)


@pytest.mark.fault("K05")
def test_sizes_that_do_not_fit_are_refused_before_memory_is_asked_for():
    x, w = np.ones((1, 2, 0, 0), np.float32), np.ones((1, 2, 4, 2), np.float32)
    geometry = Geometry((1, 1 << 20), (0, 0), (1 << 20, 1))
    with pytest.raises(ValueError, match=r"a kernel of \(2, 1\) with dilation .* doesn't fit into \(0, 0\)"):
        kernels.conv.conv2d_weight(x, w, (2, 1), geometry)
    with pytest.raises(ValueError, match=r"\(1048577, 1\) doesn't become \(4, 2\) with kernel \(2, 1\)"):
        kernels.conv.conv2d_weight(np.ones((1, 2, (1 << 20) + 1, 1), np.float32), w, (2, 1), geometry)
