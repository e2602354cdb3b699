"""A data set in a file, of which each rank reads its share."""

from __future__ import annotations

import numpy as np

from tests.models.small import SMALL, new
from tests.parallel.together import together
from tinygen.data import Dataset, MappedImages, Minibatches, mapped
from tinygen.parallel import Alone, share
from tinygen.training.config import Config
from tinygen.training.trainer import Trainer

N, SIDE = 40, 128  # images of four pages each


class Watched:
    """A memory map that knows which of its images were read."""

    def __init__(self, file):
        self.file, self.shape, self.read = file, file.shape, []

    def __len__(self):
        return len(self.file)

    def __getitem__(self, index):
        if np.ndim(index):
            self.read += np.asarray(index).tolist()
        return self.file[index]


def test_each_rank_reads_its_share_of_each_minibatch_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(mapped, "PART", 1)  # bytes of the part that each rank holds in memory: one image
    path = tmp_path / "images.npy"
    np.save(path, np.random.default_rng(0).integers(0, 4, (N, 1, SIDE, SIDE)).astype(np.uint8))

    def work():
        file = Watched(np.load(path, mmap_mode="r"))
        rng = np.random.default_rng(0)
        data = Dataset(MappedImages(file), levels=4)
        model = new("vae", (1, SIDE, SIDE), 4, rng)
        trainer = Trainer(Config(*SMALL["vae"][:1], batch_size=8, epochs=1), model, data, rng)
        (held,) = file.read
        file.read.clear()
        for _ in range(len(trainer.batches)):
            trainer.advance(0.5)
        return held, file.read

    ranks = together(4, work)
    assert len({held for held, _ in ranks}) == 1
    for _, read in ranks:
        assert len(read) == N // 4
    assert sorted(image for _, read in ranks for image in read) == list(range(N))


def test_a_rank_has_the_pages_of_its_share_in_memory(tmp_path):
    path, n, side, ranks = tmp_path / "images.npy", 8, 4096, Alone()
    np.lib.format.open_memmap(path, "w+", np.uint8, (n, 1, side, side))
    for ranks.rank in range(4):
        ranks.size = 4
        file = np.load(path, mmap_mode="r")
        data = Dataset(MappedImages(file), levels=4)
        for _ in Minibatches(data, 8, np.random.default_rng(0), share=lambda n: share(n, ranks)):
            pass
        assert n / 4 <= resident(file) / side**2 < 1.6 * n / 4  # up to 2 MB are mapped at a time


def resident(file):
    """Bytes of a memory map that this process has touched."""
    start = file.ctypes.data - file.offset
    with open("/proc/self/smaps") as lines:
        for line in lines:
            if line.startswith(f"{start:x}-"):
                return 1024 * int(next(more for more in lines if more.startswith("Rss:")).split()[1])
    raise AssertionError(f"nothing is mapped at {start:x}")
