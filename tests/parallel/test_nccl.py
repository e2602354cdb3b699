"""Sums by NCCL, on a stand-in for the names of CuPy that it calls: what is called, with what, in which order."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

from tests.parallel.together import together
from tinygen.parallel import current, nccl


class Device:
    """What one process would see of its GPU: arrays by their addresses, streams, and what was asked of both."""

    def __init__(self, ranks):
        self.ranks, self.calls, self.arrays = ranks, [], {}

    def array(self, values):
        self.arrays[id(self), len(self.arrays)] = values = np.array(values, np.float32)
        pointer = types.SimpleNamespace(ptr=list(self.arrays)[-1])
        return types.SimpleNamespace(data=pointer, dtype=values.dtype, size=values.size, values=values)

    def stream(self, name):
        def record():
            self.calls.append(f"{name} records")
            return types.SimpleNamespace(done=True, of=name)

        def wait_event(event):
            self.calls.append(f"{name} waits for {event.of}")

        return types.SimpleNamespace(record=record, wait_event=wait_event, ptr=f"the {name}'s pointer")

    def all_reduce(self, sent, received, count, kind, operation, stream):
        assert (sent, count, kind, operation) == (received, self.arrays[sent].size, "of float32", "of sums")
        self.calls.append(f"a sum on {stream}")
        self.ranks.start_sum(self.arrays[sent]).wait()

    def reduce(self, sent, received, count, kind, operation, root, stream):
        assert (sent, count, kind, operation) == (received, self.arrays[sent].size, "of float32", "of sums")
        self.calls.append(f"a sum for {root} on {stream}")
        self.ranks.start_sum(self.arrays[sent], root).wait()

    def broadcast(self, sent, received, count, kind, root, stream):
        assert (sent, count, kind) == (received, self.arrays[sent].size, "of float32")
        self.calls.append(f"a copy from {root} on {stream}")
        self.ranks.start_copy(self.arrays[sent], root).wait()


def test_a_sum_waits_for_its_array_and_backward_for_the_sum(monkeypatch):
    devices, keys = {}, []
    module = types.ModuleType("cupy.cuda.nccl")
    module.NCCL_FLOAT32, module.NCCL_SUM = "of float32", "of sums"
    module.get_unique_id = lambda: "a key"

    def communicator(size, key, rank):
        keys.append((size, key, rank))
        device = devices[rank]
        return types.SimpleNamespace(allReduce=device.all_reduce, reduce=device.reduce, broadcast=device.broadcast)

    module.NcclCommunicator = communicator
    cupy = types.SimpleNamespace(cuda=types.SimpleNamespace(
        Stream=lambda non_blocking: devices[current().rank].stream("sums"),
        get_current_stream=lambda: devices[current().rank].stream("backward"), nccl=module,
    ))  # fmt: skip
    monkeypatch.setitem(sys.modules, "cupy", types.ModuleType("cupy"))
    monkeypatch.setitem(sys.modules, "cupy.cuda", cupy.cuda)
    monkeypatch.setitem(sys.modules, "cupy.cuda.nccl", module)
    monkeypatch.setattr(nccl, "require", lambda: cupy)

    def work():
        ranks = current()
        device = devices[ranks.rank] = Device(ranks)
        array = device.array([1.0 + ranks.rank, 5.0])
        gpus = nccl.NCCL(ranks)
        pending = gpus.start_sum(array)
        assert pending.done()
        pending.wait()
        gpus.start_sum(array, root=1).wait()
        gpus.start_copy(array, root=1).wait()
        return array.values, device.calls

    queued = "a sum on the sums's pointer", "a sum for 1 on the sums's pointer", "a copy from 1 on the sums's pointer"
    for values, calls in together(2, work):
        np.testing.assert_array_equal(values, [6, 20])
        assert calls == [
            call for what in queued
            for call in ("backward records", "sums waits for backward", what, "sums records", "backward waits for sums")
        ]  # fmt: skip
    assert sorted(keys) == [(2, "a key", 0), (2, "a key", 1)]


def test_each_rank_of_a_machine_has_a_gpu_of_its_own(monkeypatch):
    used = []
    cupy = types.SimpleNamespace(cuda=types.SimpleNamespace(
        runtime=types.SimpleNamespace(getDeviceCount=lambda: 2),
        Device=lambda number: types.SimpleNamespace(use=lambda: used.append(number)),
    ))  # fmt: skip
    monkeypatch.setattr(nccl, "require", lambda: cupy)
    nccl.choose_gpu(0)
    nccl.choose_gpu(1)
    assert used == [0, 1]
    with pytest.raises(ValueError, match="--device cuda takes a GPU for each rank: this machine has 2, and more"):
        nccl.choose_gpu(2)
