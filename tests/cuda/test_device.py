"""Arrays, modules and optimizers on the device; and what is said where there is none."""

import subprocess
import sys
import types
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygen
from tests.cuda import standin
from tests.cuda.conftest import forget
from tinygen import cuda, nn, optim
from tinygen.array import memory_order, moved
from tinygen.nn import functional as F

in_any_case = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# ------------------------------------------------------------------------------------------------------------ tensors


@in_any_case
@given(data=st.data())
def test_there_and_back_is_the_same_array_in_the_same_order(device, data):
    array = data.draw(hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)))
    array = array.transpose(data.draw(st.permutations(range(array.ndim))))
    there = tinygen.tensor(array).to("cuda")
    assert (there.device, there.shape, there.dtype) == ("cuda", array.shape, array.dtype)
    assert isinstance(there._array, device.ndarray)
    back = there.to("cpu")
    assert back.device == "cpu"
    for same in (back.numpy(), there.numpy()):
        np.testing.assert_array_equal(same, array)
        if array.size:
            assert memory_order(same.squeeze()) == memory_order(tinygen.tensor(array).numpy().squeeze())


def test_where_it_is_already_it_is_itself(device):
    x = tinygen.tensor([1.0])
    assert x.to("cpu") is x
    assert x.to("cuda").to("cuda")._array is not x._array
    y = x.to("cuda")
    assert y.to("cuda") is y


def test_a_gradient_comes_back_to_where_its_leaf_is(device):
    x = tinygen.tensor(drawn(2, 3), requires_grad=True)
    (x.to("cuda") ** 3).sum().backward()
    assert x.grad.device == "cpu"
    np.testing.assert_allclose(x.grad.numpy(), 3 * x.numpy() ** 2, rtol=1e-6)
    (slope,) = tinygen.grad((x.to("cuda") ** 3).sum().to("cpu"), x, create_graph=True)
    (curvature,) = tinygen.grad(slope.sum(), x)
    np.testing.assert_allclose(curvature.numpy(), 6 * x.numpy(), rtol=1e-6)


def test_a_gradient_given_on_the_host_is_taken_along(device):
    x = tinygen.nn.Parameter(tinygen.tensor(drawn(3)).to("cuda"))
    (x * 2).backward(np.ones(3, np.float32))
    assert x.grad.device == "cuda"
    np.testing.assert_array_equal(x.grad.numpy(), [2, 2, 2])


def test_arrays_given_as_they_are_may_change_afterwards(device):
    x, factor = tinygen.nn.Parameter(tinygen.tensor(drawn(3)).to("cuda")), device.ones(3, np.float32)
    y = (x * factor).sum()
    factor[...] = 7
    y.backward()
    np.testing.assert_array_equal(x.grad.numpy(), [1, 1, 1])


def test_tensors_on_two_devices_are_refused_with_where_they_are(device):
    x = tinygen.tensor(drawn(2, 3))
    with pytest.raises(TypeError, match=r"mul\(float32 \(2, 3\) on cuda, float32 \(2, 3\)\)"):
        x.to("cuda") * x


@pytest.mark.parametrize("name", ["gpu", "cuda:1", "mps"])
def test_there_are_two_devices(name):
    with pytest.raises(ValueError, match=f"a device is 'cpu' or 'cuda', got '{name}'"):
        tinygen.tensor([1.0]).to(name)


# ------------------------------------------------------------------------------- what CuPy would let pass unnoticed


@pytest.mark.parametrize("where", ["cpu", "cuda"])
def test_an_index_out_of_range_raises_as_on_the_cpu(where, device):
    x = tinygen.tensor(drawn(3, 4)).to("cuda")
    for index in (np.array([0, 3]), np.array([-4, 0])):
        index = moved(index, np if where == "cpu" else device)
        with pytest.raises(IndexError, match="out of bounds for axis 0 with size 3"):
            x[index]
        with pytest.raises(IndexError, match="out of bounds for axis 1 with size 3"):
            tinygen.ops.index_add(x, (slice(None), index[:, None] * 1), (3, 3))
    with pytest.raises(IndexError, match="out of bounds for axis 1 with size 4"):
        x[..., [0, 4]]
    images = tinygen.tensor(drawn(3, 2, 2, 4)).to("cuda")
    np.testing.assert_array_equal(images[1, ..., [3]].numpy(), images.numpy()[1, ..., [3]])
    with pytest.raises(IndexError, match="out of bounds for axis 0 with size 3"):
        x.gather(0, np.full((1, 4), 3))


@pytest.mark.parametrize("where", ["cpu", "cuda"])
def test_labels_are_checked_wherever_they_are(where, device):
    x, table = tinygen.tensor(drawn(2, 3)).to("cuda"), tinygen.tensor(drawn(3, 4)).to("cuda")
    for wrong in ([0, 3], [-1, 0]):
        labels = moved(np.array(wrong), np if where == "cpu" else device)
        for loss in (F.cross_entropy, F.nll_loss):
            with pytest.raises(ValueError, match=r"target must be in 0\.\.2"):
                loss(x, labels)
        with pytest.raises(ValueError, match=r"input must be in 0\.\.2"):
            F.embedding(labels, table)


@in_any_case
@given(data=st.data())
def test_indices_of_all_kinds_pick_what_they_pick_on_the_cpu(device, data):
    x = drawn(3, 4, 2)
    lists = st.lists(st.integers(-2, 1), min_size=0, max_size=3)
    part = st.one_of(st.none(), st.integers(-2, 1), st.slices(2), lists, lists.map(lambda v: np.array(v, int)))
    index = tuple(data.draw(st.lists(part, max_size=2)))
    if data.draw(st.booleans()):
        index = (*index, ..., data.draw(st.integers(0, 1)))
    try:
        wanted = x[index]
    except IndexError:  # shapes that don't broadcast
        return
    a, b = (nn.Parameter(tinygen.tensor(x).to(d)) for d in ("cpu", "cuda"))
    np.testing.assert_array_equal(b[index].numpy(), wanted)
    for t in (a, b):
        (t[index] * t[index]).sum().backward()
    np.testing.assert_allclose(b.grad.numpy(), a.grad.numpy(), rtol=1e-6)
    mask = x[:, :, 0] > 0
    np.testing.assert_array_equal(tinygen.tensor(x).to("cuda")[mask].numpy(), x[mask])


# ------------------------------------------------------------------------------------------- modules and optimizers


def network(where):
    rng = np.random.default_rng(0)
    first = nn.Conv2d(2, 3, 3, padding=1, bias=False, rng=rng)
    layers = [first, nn.BatchNorm2d(3), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.ConvTranspose2d(3, 2, 2, stride=2, rng=rng)).to(where)


OPTIMIZERS = [
    lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    lambda p: optim.Adam(p, lr=0.1),
    lambda p: optim.Adam(p, lr=0.1, weight_decay=0.1),
    lambda p: optim.AdamW(p, lr=0.1),
]


def steps(net, optimizer, count):
    x = tinygen.tensor(drawn(4, 2, 3, 3).transpose(0, 2, 3, 1)).permute(0, 3, 1, 2).to(net[0].weight.device)
    for _ in range(count):
        optimizer.zero_grad()
        (net(x) ** 2).mean().backward()
        optim.clip_grad_norm_(net.parameters(), 0.5)
        optimizer.step()


def close(a, b):
    assert a.keys() == b.keys()
    for k in a:
        np.testing.assert_allclose(a[k], b[k], rtol=1e-4, atol=1e-5, err_msg=k)


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_a_run_goes_on_on_the_other_device(make, device):
    net = network("cpu")
    optimizer = make(net.parameters())
    steps(net, optimizer, 6)
    for first, second in (("cpu", "cuda"), ("cuda", "cpu"), ("cuda", "cuda")):
        begun = network(first)
        its = make(begun.parameters())
        steps(begun, its, 3)
        state = begun.state_dict(), its.state_dict()
        assert all(isinstance(v, (np.ndarray, int, float)) for part in state for v in part.values())
        other = network(second)
        further = make(other.parameters())
        other.load_state_dict(state[0])
        further.load_state_dict(state[1])
        assert {p.device for p in other.parameters()} == {second}
        steps(other, further, 3)
        close(other.state_dict(), net.state_dict())
        close(further.state_dict(), optimizer.state_dict())


def test_averages_on_the_device(device):
    found = []
    for where in ("cpu", "cuda"):
        net = network(where)
        average, optimizer = optim.ExponentialMovingAverage(net.parameters(), 0.9), optim.SGD(net.parameters(), lr=0.1)
        for _ in range(3):
            steps(net, optimizer, 1)
            average.update()
        again = optim.ExponentialMovingAverage(net.parameters())
        again.load_state_dict(average.state_dict())
        with again.average_parameters():
            found.append(net.state_dict())
    close(*found)


def test_the_norm_of_no_gradients_at_all(device):
    p = nn.Parameter(device.zeros((0, 3), np.float32))
    (p * 2).sum().backward()
    assert [optim.clip_grad_norm_(p, 1.0, norm) for norm in (1, 2, np.inf)] == [0, 0, 0]


def test_layers_that_draw_or_begin_with_zeros(device):
    x, found = drawn(3, 4), []
    for where in ("cpu", "cuda"):
        rng = np.random.default_rng(0)
        cell, drop = nn.LSTMCell(4, 2, rng=rng).to(where), nn.Dropout(0.5, rng=rng)
        found.append([t.numpy() for t in cell(drop(tinygen.tensor(x).to(where)))])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)


def test_a_module_knows_dtypes_and_devices(device):
    assert network("cpu").to("cuda").to(np.float64).to("cpu")[0].weight.dtype == np.float64
    with pytest.raises(TypeError, match="a module's dtype is float32 or float64"):
        network("cpu").to(np.int64)


# ----------------------------------------------------------------------------------------------------- without a GPU


def cupy_that_says(answer):
    """A CuPy whose driver answers the question for the number of GPUs so."""

    def count():
        if isinstance(answer, Exception):
            raise answer
        return answer

    runtime = types.SimpleNamespace(getDeviceCount=count)
    return types.SimpleNamespace(cuda=types.SimpleNamespace(runtime=runtime))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (standin.CUDARuntimeError(35), r"there is no NVIDIA driver: CUDA 13 needs driver 580 or newer"),
        (standin.CUDARuntimeError(100), r"there is no NVIDIA GPU that the driver can see"),
        (0, r"there is no NVIDIA GPU that the driver can see"),
        (standin.CUDARuntimeError(999), r"CUDA error 999"),
    ],
)
def test_why_cuda_cannot_be_used(answer, said, monkeypatch):
    monkeypatch.setattr(cuda, "_driver", lambda: "")
    monkeypatch.setitem(sys.modules, "cupy", cupy_that_says(answer))
    net = network("cpu")
    for ask in (lambda: tinygen.tensor([1.0]).to("cuda"), lambda: net.to("cuda"), lambda: cuda.resolve("cuda")):
        with pytest.raises(cuda.CudaError, match=f"^device 'cuda' can't be used: {said}"):
            ask()
    assert cuda.resolve("auto") == "cpu"
    assert net(tinygen.tensor(drawn(1, 2, 3, 3))).device == "cpu"


def test_a_driver_that_is_too_old_is_named(monkeypatch):
    monkeypatch.setattr(cuda, "_driver", lambda: "470.82")
    assert cuda.sentence(35).startswith("the NVIDIA driver, 470.82, is too old: CUDA 13 needs")


@pytest.mark.parametrize("broken", [False, True])
def test_without_cupy(broken, monkeypatch):
    def fail(name):
        raise ImportError("no libfoo")

    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(cuda.importlib.util, "find_spec", lambda name: broken or None)
    monkeypatch.setattr(cuda.importlib, "import_module", fail)
    said = r"CuPy can't be imported \(no libfoo\): pip install" if broken else "CuPy isn't installed: pip install"
    with pytest.raises(cuda.CudaError, match=said):
        tinygen.tensor([1.0]).to("cuda")
    assert cuda.resolve("auto") == cuda.resolve("cpu") == "cpu"


def test_this_very_machine_says_why_or_computes():
    script = """
import sys, tinygen
assert "cupy" not in sys.modules
x = tinygen.tensor([1.0, 2.0], requires_grad=True)
(x * x).sum().backward()
assert x.grad.numpy().tolist() == [2.0, 4.0] and "cupy" not in sys.modules
try:
    print((x.to("cuda") * 2).sum().item())
except tinygen.cuda.CudaError as e:
    print(e)
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said.startswith(("6.0", "device 'cuda' can't be used: "))
    assert said.count("\n") == 1


def test_kernels_run_on_the_current_stream_of_cupy(device, monkeypatch):
    ffi, lib, _ = cuda.library()
    streams = []
    told = types.SimpleNamespace(
        tg_cuda_stream=lambda s: streams.append(int(ffi.cast("intptr_t", s))), tg_relu=lib.tg_relu
    )
    with monkeypatch.context() as patch:
        patch.setattr(device.cuda, "get_current_stream", lambda: types.SimpleNamespace(ptr=1234))
        patch.setattr(cuda, "library", lambda: (ffi, told, ""))
        tinygen.tensor(drawn(3)).to("cuda").relu()
    assert streams == [1234]


def test_without_the_library_the_definitions_run_which_is_said_once(device, monkeypatch, tmp_path):
    forget()
    monkeypatch.setattr(cuda, "LIBRARY", tmp_path / "_cuda.so")
    x = tinygen.tensor(drawn(70, 70)).to("cuda")
    with pytest.warns(RuntimeWarning, match="the CUDA kernels were not built, so the definitions run on CuPy"):
        y = x.relu()
    np.testing.assert_array_equal(y.numpy(), np.maximum(x.numpy(), 0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (x + x).tanh()


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        (1209, cuda.CudaError, "tg_relu: the CUDA kernels were built for GPUs of compute capability 7.5 and newer"),
        (1719, cuda.CudaError, "tg_relu: unspecified launch failure"),
        (2, ValueError, "tg_relu: sizes that no array can have"),
        (1, MemoryError, "tg_relu: no memory for its scratch space"),
    ],
)
def test_what_a_kernel_answers(code, error, said, device, monkeypatch):
    ffi, lib, _ = cuda.library()
    freed = []
    pool = types.SimpleNamespace(free_all_blocks=lambda: freed.append("all"))
    fake = types.SimpleNamespace(
        tg_cuda_stream=lib.tg_cuda_stream,
        tg_relu=lambda *a: code,
        tg_cuda_error=lambda code: ffi.new("char[]", b"unspecified launch failure"),
    )
    with monkeypatch.context() as patch:
        patch.setattr(device, "get_default_memory_pool", lambda: pool)
        patch.setattr(cuda, "library", lambda: (ffi, fake, ""))
        with pytest.raises(error, match=said):
            tinygen.tensor(drawn(3)).to("cuda").relu()
    assert freed == ["all"] * (code == 1)  # CuPy's spare memory, before a second attempt
