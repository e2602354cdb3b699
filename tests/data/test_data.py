"""tinygen.data: reads what was written, refuses damage by name, gives the same batches after a resume."""

from __future__ import annotations

import gzip
import hashlib
import importlib.resources
import io
import itertools
import math
import os
import pickle
import struct
import tarfile
import tracemalloc
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinygen import data
from tinygen.cache import cache_folder
from tinygen.data import (
    Dataset,
    Minibatches,
    download,
    formats,
    held_out,
    load,
    quantize,
    sources,
    subset,
    threshold,
)

MANY = 100 if os.environ.get("TINYGEN_FULL") == "1" else 1  # times the examples of the fuzzers
SHA256_OF_DIGITS = "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A folder that hypothesis may write into again and again."""
    return tmp_path_factory.mktemp("scratch")


def idx_bytes(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def some_images(count, *shape, seed=0, levels=256):
    return np.random.default_rng(seed).integers(0, levels, (count, *shape), np.uint8)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def write_mnist(folder, train=20, test=7, suffix=".gz", separator="-"):
    """A folder like MNIST's; returns its arrays."""
    arrays = []
    for seed, (part, count) in enumerate([("train", train), ("t10k", test)]):
        images, labels = some_images(count, 5, 4, seed=seed), np.arange(count, dtype=np.uint8) % 10
        write(folder / f"{part}-images{separator}idx3-ubyte{suffix}", idx_bytes(images))
        write(folder / f"{part}-labels{separator}idx1-ubyte{suffix}", idx_bytes(labels))
        arrays.append((images, labels))
    return arrays


# The data set itself


def a_dataset(count=6, levels=256, labels=True):
    images = some_images(count, 1, 2, 3, levels=levels)
    return Dataset(images, levels, np.arange(count) % 3 if labels else None, "six", ("a", "b", "c"))


def test_dataset_is_never_changed():
    dataset = a_dataset()
    assert dataset.labels.dtype == np.int64
    assert len(dataset) == 6
    for array in (dataset.images, dataset.labels):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    images = some_images(2, 1, 2, 2)
    Dataset(images)
    images[0] = 0  # the caller's own array stays writable
    assert "array" not in repr(dataset)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": np.zeros((2, 1, 2, 2))}, TypeError, "images must be uint8, got float64"),
        ({"images": np.zeros((2, 2, 2), np.uint8)}, ValueError, r"must be \(N, C, H, W\).*\(2, 2, 2\)"),
        ({"images": np.zeros((0, 1, 2, 2), np.uint8)}, ValueError, "no size 0"),
        ({"levels": 257}, ValueError, "levels must be 2 to 256, got 257"),
        ({"levels": 1}, ValueError, "levels must be 2 to 256, got 1"),
        ({"levels": 9}, ValueError, "below its 9 levels, got 9"),
        ({"labels": np.zeros(3, int)}, ValueError, r"2 images, but labels of shape \(3,\)"),
        ({"labels": np.zeros((2, 1), int)}, ValueError, r"2 images, but labels of shape \(2, 1\)"),
        ({"labels": np.zeros(2)}, TypeError, "labels must be integers or bool, got float64"),
        ({"labels": np.array([0, 2])}, ValueError, "labels must be 0 to 1, got 0 to 2"),
        ({"labels": np.array([-1, 0]), "classes": ()}, ValueError, "labels must be 0 or more, got -1 to 0"),
        (
            {"labels": np.array([0, 1 << 63], np.uint64), "classes": ()},
            ValueError,
            "labels must be below 2",
        ),
    ],
)
def test_dataset_refuses(change, error, message):
    good = {"images": np.full((2, 1, 2, 2), 9, np.uint8), "name": "mine", "classes": ("a", "b")}
    Dataset(**good, levels=10, labels=np.array([0, 1]))
    with pytest.raises(error, match=f"data set 'mine': .*{message}"):
        Dataset(**{**good, **change})


@settings(deadline=None)
@given(st.integers(2, 256), st.data())
def test_quantize_cuts_the_range_into_equal_parts(levels, draw):
    fewer = draw.draw(st.integers(2, levels))
    every = Dataset(np.arange(levels, dtype=np.uint8).reshape(-1, 1, 1, 1), levels, np.arange(levels))
    got = quantize(every, fewer)
    assert (got.levels, got.images.dtype) == (fewer, np.uint8)
    assert [math.floor(x * fewer / levels) for x in range(levels)] == got.images.ravel().tolist()
    widths = np.bincount(got.images.ravel(), minlength=fewer)
    assert widths.min() >= 1
    assert widths.max() - widths.min() <= 1
    assert np.array_equal(got.labels, every.labels)
    two = threshold(every)
    assert two.levels == 2
    assert np.array_equal(two.images, every.images >= levels / 2)


@pytest.mark.parametrize("levels", [1, 18])
def test_quantize_refuses_levels_that_are_not_there(levels):
    with pytest.raises(ValueError, match=f"levels must be 2 to the data set's 17, got {levels}"):
        quantize(a_dataset(levels=17), levels)


def test_subset_keeps_images_and_labels_together():
    dataset = a_dataset()
    for index in (slice(1, 4), np.array([3, 0]), dataset.labels == 2):
        part = subset(dataset, index)
        assert np.array_equal(part.images, dataset.images[index])
        assert np.array_equal(part.labels, dataset.labels[index])
        assert (part.name, part.classes, part.levels) == ("six", ("a", "b", "c"), 256)
    assert subset(a_dataset(labels=False), slice(2)).labels is None
    with pytest.raises(ValueError, match="no size 0"):
        subset(dataset, slice(0))


# Sets by name


def test_digits_are_the_published_ones():
    train, test = load("digits")
    assert (train.images.shape, test.images.shape) == ((1437, 1, 8, 8), (360, 1, 8, 8))
    assert (train.levels, train.name, train.classes) == (17, "digits", tuple("0123456789"))
    images = np.concatenate([train.images, test.images])
    labels = np.concatenate([train.labels, test.labels])
    assert images.max() == 16
    assert hashlib.sha256(images.tobytes()).hexdigest() == SHA256_OF_DIGITS
    # the class counts of optdigits.tes that UCI's page gives
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert test.labels[-5:].tolist() == [9, 0, 8, 9, 8]


def test_digits_come_with_their_license_and_are_small():
    folder = importlib.resources.files("tinygen.data")
    text = (folder / "digits.txt").read_text()
    for word in ("Alpaydin", "Kaynak", "UCI", "CC BY 4.0", "10.24432/C50P49"):
        assert word in text
        assert word in load.__doc__
    assert len((folder / "digits.npz").read_bytes()) < 50_000
    with np.load(str(folder / "digits.npz"), allow_pickle=False) as file:
        assert sorted(file) == ["images", "labels", "levels"]


@pytest.fixture
def remote(tmp_path, monkeypatch):
    """Fashion-MNIST as a small set that lies at a file:// address; nothing else here, an empty cache."""
    arrays = write_mnist(tmp_path / "remote")
    files = [path.name for path in sorted((tmp_path / "remote").iterdir())]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def publish(folders=()):
        table = ""
        for file in files:
            content = (tmp_path / "remote" / file).read_bytes()
            table += f"{file} {len(content)} {hashlib.sha256(content).hexdigest()}\n"
        url = (tmp_path / "remote").as_uri() + "/"
        source = sources._Source(sources.FASHION, url, table, folders, "install the package, or ")
        monkeypatch.setitem(sources._SOURCES, "fashion-mnist", source)

    publish()
    return arrays, publish


def check_fashion(arrays):
    for dataset, (images, labels) in zip(load("fashion-mnist"), arrays, strict=True):
        assert np.array_equal(dataset.images, images[:, None])
        assert np.array_equal(dataset.labels, labels)
        assert dataset.name == "fashion-mnist"
        assert dataset.classes[9] == "Ankle boot"


def files_below(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_download_is_made_once_and_kept_in_the_cache(tmp_path, remote):
    check_fashion(remote[0])
    cache = tmp_path / "cache" / "tinygen" / "fashion-mnist"
    assert files_below(cache) == files_below(tmp_path / "remote")
    for path in (tmp_path / "remote").iterdir():
        if path.name.startswith("train"):
            path.unlink()
    (cache / "t10k-images-idx3-ubyte.gz").unlink()
    check_fashion(remote[0])  # only what is missing is brought


def test_the_systems_own_copy_comes_first_and_only_if_it_is_complete(tmp_path, remote):
    arrays, publish = remote
    other = write_mnist(tmp_path / "system", train=30)
    publish(folders=(tmp_path / "nothing", tmp_path / "system"))
    check_fashion(other)
    assert not (tmp_path / "cache").exists()
    (tmp_path / "system" / "t10k-labels-idx1-ubyte.gz").unlink()
    check_fashion(arrays)


def test_debians_folder_is_known():
    assert Path("/usr/share/datasets/fashion-mnist") in sources._SOURCES["fashion-mnist"].folders


def test_the_tables_of_files_are_complete():
    for name, source in sources._SOURCES.items():
        assert len(source.classes) == len(set(source.classes)) == 10
        assert len(source.files) == (1 if name == "cifar10" else 4)
        assert all(size > 1000 and len(bytes.fromhex(sha256)) == 32 for _, size, sha256 in source.files)
    # bytes of the MNIST archives, as http://yann.lecun.com/exdb/mnist gave them
    assert [size for _, size, _ in sources._SOURCES["mnist"].files] == [9912422, 28881, 1648877, 4542]


@pytest.mark.fault("R12")
@pytest.mark.parametrize("damage", ["half", "empty", "flipped", "longer"])
def test_other_bytes_than_the_checksums_are_not_kept(tmp_path, remote, damage):
    path = tmp_path / "remote" / "train-images-idx3-ubyte.gz"
    content = path.read_bytes()
    flipped = content[:50] + bytes([content[50] ^ 1]) + content[51:]
    path.write_bytes({"half": content[: len(content) // 2], "empty": b"", "flipped": flipped}.get(damage, content * 9))
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte.gz: the checksum is wrong, .* nothing was kept"):
        load("fashion-mnist")
    assert "train-images-idx3-ubyte.gz" not in files_below(tmp_path / "cache")
    assert not [name for name in files_below(tmp_path / "cache") if name.endswith(".part")]
    path.write_bytes(content)
    check_fashion(remote[0])


@pytest.mark.fault("R12")
def test_an_interrupted_download_leaves_nothing_that_counts(tmp_path, remote, monkeypatch):
    class Cut(io.BytesIO):
        def read(self, size=-1):
            if self.tell():
                raise KeyboardInterrupt
            return super().read(10)

    with monkeypatch.context() as patch:
        patch.setattr(urllib.request, "urlopen", lambda url, timeout: Cut(bytes(1000)))
        with pytest.raises(KeyboardInterrupt):
            load("fashion-mnist")
    assert files_below(tmp_path / "cache") == []
    # what a killed process leaves behind is not taken for the file either
    write(tmp_path / "cache" / "tinygen" / "fashion-mnist" / ".train-images-idx3-ubyte.gz.x.part", b"half")
    check_fashion(remote[0])


def test_a_download_stops_soon_after_the_size_that_was_announced(tmp_path, monkeypatch):
    class Endless(io.BytesIO):
        given = 0

        def read(self, size=-1):
            self.given += size
            return bytes(size)

    stream = Endless()
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: stream)
    with pytest.raises(ValueError, match="checksum is wrong"):
        download.download("http://endless", tmp_path / "file", 10, "00")
    assert stream.given == download.CHUNK


@pytest.mark.fault("R11", "R12")
def test_without_a_network_it_is_said_what_to_do(tmp_path, remote):
    (tmp_path / "remote" / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"fashion-mnist is not on this machine .*install .*--data FOLDER"):
        load("fashion-mnist")


@pytest.mark.fault("R11")
def test_a_cache_that_cannot_be_written_is_said_too(tmp_path, remote):
    write(tmp_path / "cache", b"a file where a folder should be")
    with pytest.raises(FileNotFoundError, match=r"can't be downloaded to .*cache.*--data FOLDER"):
        load("fashion-mnist")


def test_a_broken_connection_is_an_oserror(tmp_path, monkeypatch):
    import http.client

    def broken(url, timeout):
        raise http.client.RemoteDisconnected("gone") if timeout is None else http.client.BadStatusLine("?")

    monkeypatch.setattr(urllib.request, "urlopen", broken)
    with pytest.raises(OSError, match=r"http://x: BadStatusLine"):
        download.download("http://x", tmp_path / "file", 10, "00")


def test_the_cache_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "tinygen"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "tinygen"


@pytest.mark.fault("R13")
@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("digit", "digits"),
        ("Fashion-MNIST", "fashion-mnist"),
        ("fashion_mnist", "fashion-mnist"),
        ("minst", "mnist"),
        ("CIFAR-10", "cifar10"),
    ],
)
def test_an_unknown_name_gets_a_suggestion_before_any_work(name, meant, monkeypatch):
    monkeypatch.setattr(sources, "_located", None)
    with pytest.raises(ValueError, match=f"no data set '{name}', did you mean '{meant}'\\? known are digits, "):
        load(name)


def test_nothing_like_a_name_gets_no_suggestion():
    with pytest.raises(ValueError, match=r"no data set 'zzz': known are .*cifar10 and paths"):
        load("zzz")


@pytest.mark.fault("R12")
@pytest.mark.parametrize("name", ["no/such/folder", "images.npz", "./digits", Path("/nowhere")])
def test_a_missing_path_is_named(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"{Path(name).name}: no such file or folder"):
        load(name)


def test_a_name_wins_over_a_folder_of_that_name(tmp_path, monkeypatch):
    write_mnist(tmp_path / "digits")
    monkeypatch.chdir(tmp_path)
    assert load("digits")[0].images.shape == (1437, 1, 8, 8)
    for path in ("./digits", Path("digits"), tmp_path / "digits"):
        train, _ = load(path)
        assert (train.images.shape, train.name) == ((20, 1, 5, 4), "digits")


def read_or_refused(reader, path, *arguments):
    """What the reader gives, or None where it refuses the file by name; any other error is an error."""
    try:
        return reader(path, *arguments)
    except ValueError as error:
        message = str(error)
    assert str(path) in message
    return None


# IDX


@settings(deadline=None)
@given(
    array=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=9)),
    packed=st.booleans(),
)
def test_idx_round_trip(scratch, array, packed):
    path = write(scratch / ("file.gz" if packed else "file"), idx_bytes(array))
    got = formats.read_idx(path, array.ndim)
    assert got.dtype == np.uint8
    assert np.array_equal(got, array)
    other = array.ndim % 3 + 1
    with pytest.raises(
        ValueError, match=rf"{path.name}: the magic number must be 0000080{other}, got 0000080{array.ndim}"
    ):
        formats.read_idx(path, other)


@pytest.mark.fault("R12")
@settings(max_examples=300 * MANY, deadline=None)
@given(
    content=st.one_of(
        st.binary(max_size=60),
        st.builds(lambda tail: b"\0\0\x08\x03" + tail, st.binary(max_size=60)),
        st.builds(
            lambda sizes, tail: b"\0\0\x08\x03" + struct.pack(">3I", *sizes) + tail,
            st.tuples(*[st.integers(0, 4) | st.integers(0, 2**32 - 1)] * 3),
            st.binary(max_size=40),
        ),
    )
)
def test_idx_of_any_bytes_is_read_right_or_refused_by_name(scratch, content):
    for name, written in (("file", content), ("packed.gz", gzip.compress(content)), ("raw.gz", content)):
        path = scratch / name
        path.write_bytes(written)
        array = read_or_refused(formats.read_idx, path, 3)
        assert array is None or idx_bytes(array) == content


@pytest.mark.fault("R12")
@settings(deadline=None)
@given(cut=st.integers(0, 10_000), packed=st.booleans(), extra=st.booleans())
def test_idx_cut_off_or_too_long_anywhere_is_refused(scratch, cut, packed, extra):
    content = idx_bytes(some_images(3, 4, 5))
    path = scratch / ("cut.gz" if packed else "cut")
    whole = gzip.compress(content) if packed else content
    path.write_bytes(
        whole + gzip.compress(b"x") if packed and extra else whole + b"x" if extra else whole[: cut % len(whole)]
    )
    with pytest.raises(ValueError, match=path.name):
        formats.read_idx(path, 3)


@pytest.mark.fault("R12")
@settings(deadline=None)
@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_gz_never_gives_other_images(scratch, position, bit):
    images = some_images(3, 4, 5)
    content = bytearray(gzip.compress(idx_bytes(images)))
    content[position % len(content)] ^= 1 << bit
    path = scratch / "flipped.gz"
    path.write_bytes(content)
    got = read_or_refused(formats.read_idx, path, 3)
    assert got is None or np.array_equal(got, images)  # flips of the time stamp don't matter


@pytest.mark.fault("R12")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the magic number must be 00000803, got $"),
        (b"\0\0\x0d\x03" + bytes(12), "the magic number must be 00000803, got 00000d03"),
        (b"\0\0\x08\x03" + bytes(4), "cut off in its header"),
        (b"\0\0\x08\x03" + bytes(12) + b"x", r"\(0, 0, 0\) in the header are 0 bytes, but there are more"),
    ],
)
def test_idx_says_what_is_wrong(tmp_path, content, message):
    with pytest.raises(ValueError, match=f"file: {message}"):
        formats.read_idx(write(tmp_path / "file", content), 3)


def peak_of(function, *arguments):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"\w") as caught:
            function(*arguments)
        return tracemalloc.get_traced_memory()[1], str(caught.value)
    finally:
        tracemalloc.stop()


@pytest.mark.fault("R12", "R05")
@pytest.mark.parametrize("name", ["huge", "huge.gz"])
@pytest.mark.parametrize("sizes", [(2**32 - 1,) * 3, (1 << 20, 64, 64)])
def test_a_header_that_claims_much_allocates_little(tmp_path, name, sizes):
    path = write(tmp_path / name, b"\0\0\x08\x03" + struct.pack(">3I", *sizes) + bytes(100))
    peak, message = peak_of(formats.read_idx, path, 3)
    assert f"are {math.prod(sizes)} bytes, but there are only 100" in message
    assert peak < 4 * formats.CHUNK


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("separator", ["-", "."])
def test_a_folder_of_idx_files(tmp_path, suffix, separator):
    arrays = write_mnist(tmp_path / "mine", suffix=suffix, separator=separator)
    for dataset, (images, labels) in zip(load(tmp_path / "mine"), arrays, strict=True):
        assert np.array_equal(dataset.images, images[:, None])
        assert np.array_equal(dataset.labels, labels)
        assert (dataset.levels, dataset.name, dataset.classes) == (256, "mine", tuple("0123456789"))


def test_a_folder_of_images_alone_is_split(tmp_path):
    images = some_images(25, 3, 3)
    write(tmp_path / "train-images-idx3-ubyte", idx_bytes(images))
    train, test = load(tmp_path)
    assert train.labels is None
    assert test.labels is None
    assert train.classes == ()
    tested = held_out(3, 25)
    assert np.array_equal(test.images[:, 0], images[tested])
    assert np.array_equal(train.images[:, 0], images[~tested])


@pytest.mark.fault("R12")
def test_folders_of_idx_files_that_do_not_fit(tmp_path):
    write_mnist(tmp_path)
    write(tmp_path / "train-labels-idx1-ubyte.gz", idx_bytes(np.zeros(19, np.uint8)))
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte.gz: 19 labels for 20 images"):
        load(tmp_path)
    write_mnist(tmp_path)
    write(tmp_path / "t10k-images-idx3-ubyte.gz", idx_bytes(some_images(7, 5, 5)))
    with pytest.raises(ValueError, match=r"test images must have .*\(1, 5, 4\), got \(1, 5, 5\)"):
        load(tmp_path)
    write(tmp_path / "one" / "train-images-idx3-ubyte", idx_bytes(some_images(1, 5, 5)))
    with pytest.raises(ValueError, match=r"data set 'one': must have at least 3 images, .*, got 1"):
        load(tmp_path / "one")
    write(tmp_path / "none" / "train-images-idx3-ubyte", idx_bytes(some_images(0, 5, 5)))
    with pytest.raises(ValueError, match=r"data set .none.: images must be .* no size 0"):
        load(tmp_path / "none")
    (tmp_path / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(ValueError, match="holds no images, wanted are train-images-idx3-ubyte"):
        load(tmp_path)


# CIFAR-10


def cifar_batches(counts=(4, 3, 2)):
    """Contents by file name, and the arrays of training and test set."""
    contents, arrays = {}, []
    names = [*(f"data_batch_{i + 1}.bin" for i in range(len(counts) - 1)), "test_batch.bin"]
    for seed, (name, count) in enumerate(zip(names, counts, strict=True)):
        images, labels = some_images(count, 3, 32, 32, seed=seed), np.arange(seed, seed + count) % 10
        records = [
            bytes([label]) + b"".join(plane.tobytes() for plane in image)
            for image, label in zip(images, labels, strict=True)
        ]
        contents[name] = b"".join(records)
        arrays.append((images, labels))
    train = tuple(np.concatenate(part) for part in zip(*arrays[:-1], strict=True))
    return contents, (train, arrays[-1])


def tar_gz(path, contents):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in contents.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("how", ["folder", "archive", "folder of archive", "cifar10"])
def test_cifar10(tmp_path, how, monkeypatch):
    contents, arrays = cifar_batches()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    name = tmp_path / "tinygen" / "cifar10"
    name.mkdir(parents=True)
    if how == "folder":
        for file, content in contents.items():
            write(name / file, content)
    else:
        archive = tar_gz(name / "cifar-10-binary.tar.gz", {"readme.html": b"hi", **contents})
        name = {"archive": archive, "cifar10": "cifar10"}.get(how, name)
    for dataset, (images, labels) in zip(load(name), arrays, strict=True):
        assert np.array_equal(dataset.images, images)
        assert np.array_equal(dataset.labels, labels)
        assert (dataset.levels, dataset.classes[0], dataset.classes[9]) == (256, "airplane", "truck")


def test_cifar10_without_a_test_batch_is_split(tmp_path):
    contents, ((images, labels), _) = cifar_batches((10, 3, 2))
    del contents["test_batch.bin"]
    for name in (
        tar_gz(tmp_path / "x.tgz", contents),
        write(tmp_path / "data_batch_1.bin", contents["data_batch_1.bin"]).parent,
    ):
        train, test = load(name)
        n = len(train) + len(test)
        tested = held_out(-(-n // 10), n, labels[:n])
        assert np.array_equal(test.images, images[:n][tested])
        assert np.array_equal(train.images, images[:n][~tested])


@pytest.mark.fault("R12")
def test_cifar10_that_is_damaged(tmp_path):
    contents, _ = cifar_batches()
    for content, message in [
        (contents["data_batch_1.bin"][:-1], "12291 bytes are not whole records of 3073"),
        (b"", "0 bytes are not whole records"),
        (b"\x0a" + contents["data_batch_1.bin"][1:], "labels must be 0 to 9, got 10"),
    ]:
        write(tmp_path / "data_batch_1.bin", content)
        with pytest.raises(ValueError, match=f"data_batch_1.bin: {message}"):
            load(tmp_path)
        with pytest.raises(ValueError, match=f"data_batch_1.bin: {message}"):
            load(tar_gz(tmp_path / "a.tar.gz", {"data_batch_1.bin": content}))
    with pytest.raises(ValueError, match=r"a.tar.gz: holds no data_batch_\*.bin"):
        load(tar_gz(tmp_path / "a.tar.gz", {"test_batch.bin": contents["test_batch.bin"]}))


@pytest.mark.fault("R12")
@given(cut=st.integers(0, 1 << 20))
@settings(max_examples=40, deadline=None)
def test_a_cifar10_archive_cut_off_anywhere_is_refused(scratch, cut):
    path = scratch / "cut.tar.gz"
    whole = tar_gz(path, cifar_batches((2, 1))[0]).read_bytes()
    path.write_bytes(whole[: cut % len(whole)])
    with pytest.raises(ValueError, match=r"cut\.tar\.gz"):
        load(path)


@pytest.mark.fault("R12")
def test_a_checksum_counts_even_far_behind_the_last_batch(tmp_path):
    tar = gzip.decompress(tar_gz(tmp_path / "a.tar.gz", cifar_batches()[0]).read_bytes())
    packed = bytearray(gzip.compress(tar + bytes(1 << 20)))
    packed[-5] ^= 1
    (tmp_path / "a.tar.gz").write_bytes(packed)
    with pytest.raises(ValueError, match=r"a\.tar\.gz: damaged or cut off \(CRC"):
        load(tmp_path / "a.tar.gz")


@pytest.mark.fault("R05")
@pytest.mark.parametrize("size", [10_000 * 3073 + 1, 1 << 60])
def test_an_archive_that_claims_much_is_refused_at_once(tmp_path, size):
    info = tarfile.TarInfo("data_batch_1.bin")
    info.size = size
    path = write(tmp_path / "a.tar.gz", info.tobuf(tarfile.GNU_FORMAT) + bytes(10_000))
    peak, message = peak_of(load, path)
    assert "data_batch_1.bin is larger than a batch" in message
    assert peak < 4 * formats.CHUNK


@pytest.mark.fault("R05", "R12")
@pytest.mark.parametrize("header", [{"GNU.sparse.map": "a,b"}, {"GNU.sparse.size": "x"}, {"size": "-5"}])
def test_a_garbled_header_in_an_archive_is_refused_by_name(tmp_path, header):
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("data_batch_1.bin")
        info.size, info.pax_headers = 3073, header
        archive.addfile(info, io.BytesIO(bytes(3073)))
    assert read_or_refused(formats.read_cifar10_archive, path) is None


@pytest.mark.fault("R05")
def test_links_and_paths_in_an_archive_lead_nowhere(tmp_path):
    contents, (train, _) = cifar_batches((2, 1))
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE):
            info = tarfile.TarInfo("data_batch_2.bin")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        info = tarfile.TarInfo("../../data_batch_1.bin")
        info.size = len(contents["data_batch_1.bin"])
        archive.addfile(info, io.BytesIO(contents["data_batch_1.bin"]))
    assert np.array_equal(formats.read_cifar10_archive(path)[0][0], train[0])
    assert files_below(tmp_path) == ["a.tar.gz"]


# npz


def load_npz(path, **arrays):
    """What the files of `arrays` give, train and test put back together."""
    np.savez_compressed(path, **arrays)
    train, test = load(path)
    whole = np.empty((len(train) + len(test), *train.images.shape[1:]), np.uint8)
    tested = held_out(len(test), len(whole), arrays.get("labels"))
    whole[~tested], whole[tested] = train.images, test.images
    return whole, train, test


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["uint8", ">i2", "int64", "uint16"])
@pytest.mark.parametrize("channels", [0, 1, 3])
def test_npz_in_any_layout(tmp_path, dtype, order, channels):
    images = some_images(12, max(channels, 1), 4, 5)
    labels = np.arange(12) % 4
    layouts = [images, images.transpose(0, 2, 3, 1)] if channels else [images[:, 0]]
    for layout in layouts:
        stored = np.array(layout, dtype, order=order)
        whole, train, test = load_npz(tmp_path / "my set.npz", images=stored, labels=labels.astype(">u2"))
        assert np.array_equal(whole, images)
        tested = held_out(2, 12, labels)
        assert np.array_equal(test.labels, labels[tested])
        assert np.array_equal(train.labels, labels[~tested])
        assert (train.levels, train.name, train.classes) == (256, "my set", ("0", "1", "2", "3"))
        assert train.images.flags.c_contiguous


def test_npz_levels_and_missing_labels(tmp_path):
    images = some_images(4, 2, 2, levels=5)
    for arrays, levels in [
        ({"images": images}, 256),
        ({"images": images, "levels": 5}, 5),
        ({"images": images > 2}, 2),
    ]:
        whole, train, test = load_npz(tmp_path / "a.npz", **arrays)
        assert (train.levels, test.levels, train.labels) == (levels, levels, None)
        assert np.array_equal(whole[:, 0], arrays["images"])
    # where (N, C, H, W) and (N, H, W, C) both fit, it is the former
    assert load_npz(tmp_path / "a.npz", images=some_images(4, 3, 5, 1))[1].images.shape[1:] == (3, 5, 1)


def test_npz_with_bool_labels(tmp_path):
    labels = np.arange(12) % 3 == 0
    _, train, test = load_npz(tmp_path / "a.npz", images=some_images(12, 2, 2), labels=labels)
    tested = held_out(2, 12, labels)
    assert (train.labels.dtype, train.classes) == (np.int64, ("0", "1"))
    assert train.labels.tolist() == labels[~tested].astype(int).tolist()
    assert sorted(test.labels.tolist()) == [0, 1]


def test_npz_with_the_longer_kind_of_header(tmp_path):
    images, stream = some_images(4, 2, 2), io.BytesIO()
    np.lib.format.write_array(stream, images, version=(2, 0))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", stream.getvalue())
    assert np.array_equal(formats.read_npz(tmp_path / "a.npz")[0][:, 0], images)


def test_npz_with_labels_too_large_for_names(tmp_path):
    _, train, _ = load_npz(tmp_path / "a.npz", images=some_images(4, 2, 2), labels=np.array([0, 1 << 60, 5, 5]))
    assert train.classes == ()
    assert train.labels.max() == 1 << 60


@pytest.mark.fault("R12")
@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": np.zeros((2, 2, 2), int)}, "holds no array named images"),
        ({"images": np.zeros((2, 2, 2))}, "images must be integers or bool, got float64"),
        ({"images": np.full((2, 2, 2), 256)}, "pixels must be 0 to 255, got 256 to 256"),
        ({"images": np.full((2, 2, 2), -1)}, "pixels must be 0 to 255, got -1 to -1"),
        ({"images": np.zeros((2, 2), int)}, r"images must be \(N, H, W\).*, got \(2, 2\)"),
        ({"images": np.zeros((2, 2, 2, 2), int)}, r"with C 1 or 3, got \(2, 2, 2, 2\)"),
        ({"images": np.zeros((0, 2, 2), int)}, "no size 0"),
        ({"images": np.zeros((2, 2, 2), int), "labels": np.zeros(3, int)}, "2 images, but labels of shape"),
        ({"images": np.zeros((2, 2, 2), int), "labels": np.zeros(2)}, "labels must be integers or bool"),
        ({"images": np.zeros((2, 2, 2), int), "levels": np.array([2, 3])}, "levels must be one number"),
        ({"images": np.zeros((2, 2, 2), int), "levels": 300}, "levels must be 2 to 256, got 300"),
        ({"images": np.ones((2, 2, 2), "V4")}, "images must be integers or bool"),
    ],
)
def test_npz_that_does_not_fit(tmp_path, arrays, message):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises((ValueError, TypeError), match=f"bad.*{message}"):
        load(tmp_path / "bad.npz")


class Evil:
    def __reduce__(self):
        return os.mkdir, (str(Evil.target),)


@pytest.mark.fault("R05")
@pytest.mark.parametrize("name", ["images", "labels", "levels"])
def test_a_pickle_in_an_npz_is_refused_and_never_run(tmp_path, name):
    Evil.target = tmp_path / "executed"
    good = {"images": np.zeros((2, 2, 2), np.uint8)}
    np.savez(tmp_path / "evil.npz", **{**good, name: np.array([Evil(), Evil()], object)})
    with pytest.raises(
        ValueError, match=rf"evil.npz: {name} must be integers .*Python objects, which are never loaded"
    ):
        load(tmp_path / "evil.npz")
    with zipfile.ZipFile(tmp_path / "evil.npz", "w") as archive:
        archive.writestr("images.npy", pickle.dumps(Evil()))
    with pytest.raises(ValueError, match=r"evil.npz: images can't be read as an array of NumPy's"):
        load(tmp_path / "evil.npz")
    assert not Evil.target.exists()


def npy_header(shape):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return stream.getvalue()


@pytest.mark.fault("R05")
@pytest.mark.parametrize("shape", [(1 << 40, 2, 2), (1 << 70,), (9, 2, 2), (-2, -2, 2), (-1, 2, 2)])
def test_an_npy_header_that_claims_another_size_is_refused(tmp_path, shape):
    path = tmp_path / "huge.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", npy_header(shape) + bytes(8))
    peak, message = peak_of(load, path)
    assert "huge.npz: images has not the size of the shape" in message
    assert peak < 1 << 20


@pytest.mark.fault("R05")
@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_that_expands_further_than_deflate_can_is_refused(tmp_path, method):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("images.npy", npy_header((10, 1000, 2000)) + bytes(20_000_000))
    peak, message = peak_of(load, path)
    assert "images is compressed in a way that NumPy doesn't write" in message
    assert peak < 1 << 20


@pytest.mark.fault("R05")
def test_a_zip_directory_that_claims_much_is_refused(tmp_path):
    path = tmp_path / "bomb.npz"
    np.savez(path, images=np.zeros((2, 2, 2), np.uint8))
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = struct.pack("<I", 0x7FFFFFFF)  # the size when unpacked
    path.write_bytes(content)
    peak, message = peak_of(load, path)
    assert "images claims 2147483647 bytes, more than the file can hold" in message
    assert peak < 1 << 20


@pytest.mark.fault("R05", "R12")
@settings(max_examples=300 * MANY, deadline=None)
@given(st.data())
def test_a_damaged_npz_is_refused_by_name_or_gives_the_same_images(scratch, draw):
    images = some_images(4, 2, 3)
    path = scratch / "damaged.npz"
    draw.draw(st.sampled_from([np.savez, np.savez_compressed]))(path, images=images)
    content = bytearray(path.read_bytes())
    for _ in range(draw.draw(st.integers(1, 3))):
        content[draw.draw(st.integers(0, len(content) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    path.write_bytes(content[: draw.draw(st.integers(0, len(content)))] if draw.draw(st.booleans()) else content)
    got = read_or_refused(formats.read_npz, path)
    assert got is None or (np.array_equal(got[0][:, 0], images) and got[1:] == (None, 256))


@pytest.mark.fault("R12")
@pytest.mark.parametrize(("offset", "value"), [(6, 99), (8, 1), (10, 99), (12, 12)])
def test_a_zip_directory_that_python_cannot_read_is_refused_by_name(tmp_path, offset, value):
    path = tmp_path / "a.npz"
    np.savez(path, images=some_images(4, 2, 3))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + offset] = value  # version, encryption, method, time of day
    path.write_bytes(content)
    got = read_or_refused(formats.read_npz, path)
    assert (got is None) == (offset != 12)


@pytest.mark.fault("R05", "R12")
@settings(max_examples=300 * MANY, deadline=None)
@given(
    header=st.binary(max_size=80)
    | st.text("{}()[]'\",:\\ \n0123456789descrfotan_|u1<i8LTrueFalse", max_size=120).map(str.encode)
)
def test_an_npy_header_of_any_bytes_is_refused_by_name(scratch, header):
    path = scratch / "header.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    with pytest.raises(ValueError, match=r"header\.npz"):
        formats.read_npz(path)


@pytest.mark.parametrize("name", ["notes.txt", "train-images-idx3-ubyte.gz", "picture.png"])
def test_other_files_are_refused_by_name(tmp_path, name):
    with pytest.raises(
        ValueError, match=f"{name}: a data set must be an .npz, an .npy, a .tar.gz of CIFAR-10 or a folder"
    ):
        load(write(tmp_path / name, b"hello"))


# Minibatches


sizes = st.tuples(st.integers(1, 30), st.integers(1, 12), st.booleans()).filter(lambda s: not s[2] or s[1] <= s[0])


@settings(deadline=None)
@given(sizes, st.integers(0, 2**32))
def test_an_epoch_gives_every_image_once(size, seed):
    count, batch_size, drop_last = size
    batches = Minibatches(np.arange(count), batch_size, np.random.default_rng(seed), drop_last)
    again = np.random.default_rng(seed)
    for _ in range(3):
        epoch = list(batches)
        assert len(epoch) == len(batches)
        assert all(len(batch) == batch_size for batch in epoch[:-1])
        got = np.concatenate(epoch)
        assert np.array_equal(got, again.permutation(count)[: len(got)])  # the one draw, and the order it says
        assert len(got) == (count // batch_size * batch_size if drop_last else count)


def take(batches, count):
    """So many batches, over the ends of epochs."""
    return list(itertools.islice(itertools.chain.from_iterable(itertools.repeat(batches)), count))


@pytest.mark.fault("R07", "R08")
@settings(deadline=None)
@given(sizes, st.integers(0, 25), st.integers(0, 2**32))
def test_a_resume_anywhere_gives_the_same_batches(size, before, seed):
    count, batch_size, drop_last = size
    values = np.arange(count) * 7
    rng = np.random.default_rng(seed)
    batches = Minibatches(values, batch_size, rng, drop_last)
    take(batches, before)
    state, random_state = batches.state_dict(), rng.bit_generator.state
    unbroken = Minibatches(values, batch_size, np.random.default_rng(seed), drop_last)
    expected = take(unbroken, before + 20)[before:]

    assert {key: type(value) for key, value in state.items()} == {"permutation": np.ndarray, "position": int}
    assert state["permutation"].dtype == np.int64
    file = io.BytesIO()
    np.savez(file, **state)
    file.seek(0)
    resumed_rng = np.random.default_rng(seed + 1)
    resumed_rng.bit_generator.state = random_state
    resumed = Minibatches(values, batch_size, resumed_rng, drop_last)
    with np.load(file, allow_pickle=False) as saved:
        resumed.load_state_dict(dict(saved))
    for a, b in zip(expected, take(resumed, 20), strict=True):
        assert a.tobytes() == b.tobytes()


def test_a_state_saved_in_the_loop_is_past_the_batch_in_hand():
    batches = Minibatches(np.arange(10), 4, np.random.default_rng(0))
    positions = [batches.state_dict()["position"] for _ in batches]
    assert positions == [4, 8, 10]


def test_a_saved_state_does_not_follow_the_training():
    batches = Minibatches(np.arange(10), 4, np.random.default_rng(0))
    take(batches, 1)
    state = batches.state_dict()
    before = state["permutation"].copy()
    take(batches, 5)
    assert np.array_equal(state["permutation"], before)
    batches.load_state_dict(state)
    state["permutation"][:] = 0
    batches.state_dict()["permutation"][:] = 0
    assert np.array_equal(batches.state_dict()["permutation"], before)


def test_minibatches_of_a_dataset_of_arrays_and_of_a_tuple():
    dataset = a_dataset()
    order = np.random.default_rng(3).permutation(6)[:4]
    (images, labels), _ = Minibatches(dataset, 4, np.random.default_rng(3))
    assert np.array_equal(images, dataset.images[order])
    assert np.array_equal(labels, dataset.labels[order])
    images[:] = 0  # a copy
    assert a_dataset(labels=False).labels is None
    assert next(iter(Minibatches(a_dataset(labels=False), 4, np.random.default_rng(3))))[1] is None
    a, b = next(iter(Minibatches((np.arange(6), np.arange(6) * 2.0), 4, np.random.default_rng(3))))
    assert np.array_equal(a * 2.0, b)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "batch_size must be 1 or more, got 0"),
        (
            {"batch_size": 7, "drop_last": True},
            ValueError,
            "batch_size must be 1 to the 6 of the data, got 7",
        ),
        ({"rng": 3}, TypeError, "rng must be a numpy.random.Generator, got int"),
        ({"data": (np.zeros(3), np.zeros(4))}, ValueError, r"one length >= 1, got \[3, 4\]"),
        ({"data": np.zeros((0, 3))}, ValueError, r"one length >= 1, got \[0\]"),
        ({"data": ()}, ValueError, r"one length >= 1, got \[\]"),
    ],
)
def test_minibatches_refuse(change, error, message):
    good = {"data": np.arange(6), "batch_size": 6, "rng": np.random.default_rng(0)}
    assert len(Minibatches(**good, drop_last=True)) == 1
    with pytest.raises(error, match=f"Minibatches: .*{message}"):
        Minibatches(**{**good, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"permutation": np.arange(5)}, "the state is of 5 images, the data has 4"),
        ({"permutation": np.array([0, 1, 1, 3])}, "permutation is not one of 0 to 3"),
        ({"position": 5}, "position must be 0 to 4, got 5"),
        ({"position": -1}, "position must be 0 to 4, got -1"),
        ({"epoch": 1}, r"must hold permutation and position, got \['epoch', 'permutation', 'position'\]"),
    ],
)
def test_a_state_of_other_data_is_refused_and_changes_nothing(change, message):
    batches = Minibatches(np.arange(4), 3, np.random.default_rng(0))
    take(batches, 1)
    state = batches.state_dict()
    with pytest.raises(ValueError, match=message):
        batches.load_state_dict({**state, **change})
    assert np.array_equal(batches.state_dict()["permutation"], state["permutation"])
    assert batches.state_dict()["position"] == state["position"]


def test_the_public_names():
    assert data.NAMES == ("digits", "fashion-mnist", "mnist", "cifar10")
    assert all(hasattr(data, name) for name in data.__all__)


def test_a_data_set_without_a_name():
    with pytest.raises(ValueError, match="no data set without a name"):  # not the images that happen to lie here
        load("")


def test_a_label_beyond_int64_is_named_as_it_is():
    labels = np.full(2, 2**63, np.uint64)
    with pytest.raises(ValueError, match=r"labels must be below 2\^63, got 9223372036854775808"):
        Dataset(np.zeros((2, 1, 2, 2), np.uint8), labels=labels)
