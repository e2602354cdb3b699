"""Images in an .npy: read as they are, and where the file is large, only as they are needed."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygen.data import Dataset, MappedImages, Minibatches, held_out, in_memory, load, mapped, quantize, subset


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.fixture
def large(monkeypatch):
    """All files count as large; a part in memory is of 100 bytes."""
    monkeypatch.setattr(mapped, "IN_MEMORY", 0)
    monkeypatch.setattr(mapped, "PART", 100)


def save(folder, images, labels=None):
    np.save(folder / "mine.npy", images)
    if labels is not None:
        np.save(folder / "mine.labels.npy", labels)
    return folder / "mine.npy"


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("layout", ["NHW", "NCHW", "NHWC", "bool"])
@pytest.mark.parametrize("limit", [0, 1 << 27])
def test_an_npy_gives_what_an_npz_gives(tmp_path, monkeypatch, layout, order, limit):
    monkeypatch.setattr(mapped, "IN_MEMORY", limit)
    shape = {"NCHW": (30, 3, 4, 5), "NHWC": (30, 4, 5, 3)}.get(layout, (30, 4, 5))
    images = noise(*shape) > 9 if layout == "bool" else noise(*shape)
    labels = np.arange(30) % 7
    path = save(tmp_path, np.asarray(images, order=order), labels.astype(np.uint8))
    np.savez(tmp_path / "mine.npz", images=images, labels=labels)
    for got, wanted in zip(load(path), load(tmp_path / "mine.npz"), strict=True):
        assert isinstance(got.images, MappedImages) == (limit == 0)
        assert got.images.shape == wanted.images.shape
        assert np.array_equal(np.asarray(got.images), wanted.images)
        assert np.array_equal(got.labels, wanted.labels)
        assert (got.levels, got.name, got.classes, got.notes) == (wanted.levels, "mine", wanted.classes, ())
        assert (got.digests == wanted.digests) == (layout != "bool" or limit > 0)
        assert np.array_equal(in_memory(got).images, wanted.images)


def test_labels_that_are_not_there_are_missed(tmp_path):
    train, _ = load(save(tmp_path, noise(5, 2, 2)))
    assert train.labels is None
    assert train.notes == (f"no labels: {tmp_path / 'mine.labels.npy'} is not there",)


def test_a_bool_is_zero_or_one_whatever_its_byte(tmp_path):
    save(tmp_path, np.zeros((5, 2, 2), bool))
    with (tmp_path / "mine.npy").open("r+b") as file:
        file.seek(-3, io.SEEK_END)
        file.write(b"\x07\x00\xff")
    train, test = load(tmp_path / "mine.npy")
    assert sorted(np.concatenate([train.images, test.images]).ravel()) == [0] * 18 + [1] * 2


@pytest.mark.fault("R05", "R12")
@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((5, 2, 2)), None, r"mine.npy: images must be uint8 or bool, got float64: .*astype\(np.uint8\)"),
        (np.zeros((5, 2, 2), int), None, "mine.npy: images must be uint8 or bool, got int64"),
        (np.zeros((5, 2), np.uint8), None, r"mine.npy: images must be \(N, H, W\)"),
        (np.array([{}] * 5), None, "mine.npy: can't be read .*Python objects"),
        (noise(5, 2, 2), np.zeros(5), "mine.labels.npy: labels must be integers or bool, got float64"),
        (noise(5, 2, 2), np.zeros(4, int), r"mine.labels.npy: labels must be \(5,\), .*, got \(4,\)"),
        (noise(5, 2, 2), np.array([0, -1, 2, 3, 4]), "data set 'mine': labels must be 0 "),
    ],
)
def test_an_npy_that_does_not_fit_is_refused(tmp_path, images, labels, message):
    with pytest.raises(ValueError, match=message):
        load(save(tmp_path, images, labels))


@pytest.mark.fault("R05", "R12")
@settings(max_examples=150)
@given(st.data())
def test_a_damaged_npy_is_refused_by_name_or_gives_an_image_of_other_values(tmp_path_factory, draw):
    path = save(tmp_path_factory.getbasetemp(), noise(5, 2, 2))
    content = bytearray(path.read_bytes())
    for _ in range(draw.draw(st.integers(1, 3))):
        content[draw.draw(st.integers(0, 127))] ^= 1 << draw.draw(st.integers(0, 7))
    path.write_bytes(content[: draw.draw(st.integers(0, len(content)))] if draw.draw(st.booleans()) else content)
    try:
        train, _ = load(path)
    except ValueError as error:
        refusal = str(error)
    else:
        assert train.images.size == 16
        return
    assert "mine" in refusal


def test_an_npy_that_is_longer_than_its_header_says_is_refused(tmp_path):
    path = save(tmp_path, noise(5, 2, 2))
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ValueError, match=r"mine.npy: has not the size of the shape \(5, 2, 2\) in its header"):
        load(path)


# ------------------------------------------------------------------------------------------------------ rows of a file


@given(st.data())
def test_rows_of_rows_are_those_of_an_array(draw):
    images, count = noise(40, 1, 2, 3), 40
    whole, plain = Dataset(MappedImages(images), labels=np.arange(40)), Dataset(images, labels=np.arange(40))
    for _ in range(draw.draw(st.integers(0, 4))):
        if draw.draw(st.booleans()):
            levels = draw.draw(st.integers(2, whole.levels))
            whole, plain = quantize(whole, levels), quantize(plain, levels)
            continue
        mask = np.random.default_rng(draw.draw(st.integers(0, 9))).random(count) < 0.9
        mask[0] = True
        index = draw.draw(st.sampled_from([mask, np.flatnonzero(mask)[::-1], slice(0, max(1, count - 2))]))
        whole, plain = subset(whole, index), subset(plain, index)
        count = len(plain)
    assert isinstance(whole.images, MappedImages)
    assert (len(whole), whole.images.shape, whole.levels) == (count, plain.images.shape, plain.levels)
    assert np.array_equal(whole.labels, plain.labels)
    for index in (slice(None), slice(1, 3), np.arange(count) % 2 == 0, np.array([0, count - 1]), 0):
        assert np.array_equal(whole.images[index], plain.images[index])
    if whole.levels == 256:
        assert whole.digests == plain.digests
    order = np.random.default_rng(0)
    for a, b in zip(Minibatches(whole, 7, order), Minibatches(plain, 7, np.random.default_rng(0)), strict=True):
        assert a[0].tobytes() == b[0].tobytes()
        assert a[0].flags.c_contiguous
        assert np.array_equal(a[1], b[1])


def test_the_part_in_memory_has_all_classes(large):
    labels = np.arange(300) % 10
    whole = Dataset(MappedImages(noise(300, 1, 2, 2)), labels=labels)
    part = in_memory(whole)
    assert len(part) == 25  # 100 bytes
    assert sorted(set(np.bincount(part.labels))) == [2, 3]
    chosen = held_out(25, 300, labels)
    assert np.array_equal(part.images, noise(300, 1, 2, 2)[chosen])
    assert in_memory(whole) is part  # a network that is trained on it is known by it
    assert in_memory(part) is part


# ------------------------------------------------------------------------------------------------- larger than memory

ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # each thread has a stack, which counts
PROGRAM = """
import resource, sys
from pathlib import Path
import numpy as np
from tinygen.data import sources
from tinygen.models.vae import family
from tinygen.training import loop
from tinygen.training.config import Config

path, limit = Path(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))  # of memory that is the process's own; not of mapped files
family.EVALUATED, family.VAEFamily.draws, sources.TESTED = 10, 5, (10, 500)  # images and draws: enough for this
options = {"hidden": 8, "latent": 2}
config = Config("vae", str(path), 2, options, epochs=5e-5, batch_size=16)
run = loop.train(config, path.parent / "run")
loop.resume(run.folder)
"""


def test_images_of_more_bytes_than_memory_are_trained_on(tmp_path):
    """1 GiB of images, zeros that take no space on the disk, in 512 MiB."""
    count = (1 << 30) // (32 * 32)
    with (tmp_path / "big.npy").open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, 32, 32)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + count * 32 * 32)
    np.save(tmp_path / "big.labels.npy", np.arange(count) % 10)
    program = textwrap.dedent(PROGRAM)
    ran = subprocess.run([sys.executable, "-c", program, str(tmp_path / "big.npy"), str(512 << 20)],
                         capture_output=True, text=True, timeout=300, env=os.environ | ONE_THREAD)  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1,047,077 images 1x32x32, 2 levels" in ran.stdout
    assert "trivial models see 16,384 of them" in ran.stdout
