"""Readers of files of arrays: MNIST's IDX, CIFAR-10's binary batches, .npz archives, .npy files of any size.

Each gives arrays: images (N, C, H, W), uint8, and labels (N,) or None. Files are not trusted: nothing in them
is ever executed (no pickle), and memory follows the bytes that are there, not what a header claims (gzip and
zip expand a byte to 1,032 at most). What doesn't fit raises ValueError, one sentence that names the file.
"""

from __future__ import annotations

import gzip
import io
import math
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from tinygen.data import mapped
from tinygen.data.mapped import MappedImages

Arrays = tuple[np.ndarray, np.ndarray | None]

CHUNK = 1 << 20
DEFLATE_RATIO = 1032  # what one byte can expand to (https://zlib.net/zlib_tech.html)
DAMAGE = (
    EOFError,
    NotImplementedError,
    OverflowError,
    gzip.BadGzipFile,
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)
CIFAR10_RECORD = 1 + 3 * 32 * 32
CIFAR10_ARCHIVE = "cifar-10-binary.tar.gz"


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Names the file in every complaint about its content, whoever makes it."""
    try:
        yield
    except DAMAGE as error:
        raise ValueError(f"{path}: damaged or cut off ({error})") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


# IDX (http://yann.lecun.com/exdb/mnist): the bytes 0, 0, 8 (unsigned bytes), the number of dimensions; each
# size in four bytes, the highest first; the values.


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """The array of unsigned bytes with `ndim` dimensions in an IDX file, plain or (by its name) .gz."""
    opener = gzip.open if path.suffix == ".gz" else open
    with _naming(path), cast(BinaryIO, opener(path, "rb")) as file:
        header = file.read(4 + 4 * ndim)
        magic = bytes([0, 0, 8, ndim])
        if header[:4] != magic:
            raise ValueError(f"the magic number must be {magic.hex()}, got {header[:4].hex()}")
        if len(header) < 4 + 4 * ndim:
            raise ValueError("cut off in its header")
        shape = tuple(int(size) for size in np.frombuffer(header, ">u4", offset=4))
        size = math.prod(shape)
        data = _read_up_to(file, size + 1)
        if len(data) != size:
            there = "more" if len(data) > size else f"only {len(data)}"
            raise ValueError(f"{shape} in the header are {size} bytes, but there are {there}")
        return np.frombuffer(data, np.uint8).reshape(shape)


def _read_up_to(file: BinaryIO, limit: int) -> bytearray:
    """Piece by piece: read(limit) would allocate whatever a header claims. At the end gzip checks its CRC."""
    data = bytearray()
    while len(data) < limit and (piece := file.read(min(CHUNK, limit - len(data)))):
        data += piece
    return data


def mnist_file(folder: Path, part: str, what: str) -> Path | None:
    """MNIST's file of a part (train, t10k) and what (images-idx3, labels-idx1) in either spelling."""
    stems = [f"{part}-{what}-ubyte", f"{part}-{what.replace('-', '.')}-ubyte"]
    paths = [folder / (stem + suffix) for suffix in ("", ".gz") for stem in stems]
    return next((path for path in paths if path.is_file()), None)


def read_mnist(folder: Path) -> list[Arrays]:
    """Training and, if there, test images of a folder with MNIST's file names; labels may be missing."""
    parts: list[Arrays] = []
    for part in ("train", "t10k"):
        image_path = mnist_file(folder, part, "images-idx3")
        label_path = mnist_file(folder, part, "labels-idx1")
        if image_path:
            images = read_idx(image_path, 3)[:, None]
            labels = read_idx(label_path, 1) if label_path else None
            if labels is not None and len(labels) != len(images):
                raise ValueError(f"{label_path}: {len(labels)} labels for {len(images)} images")
            parts.append((images, labels))
    return parts


# CIFAR-10, binary version (https://www.cs.toronto.edu/~kriz/cifar.html): records of a label and 32x32 pixels,
# all red, then all green, then all blue.


def read_cifar10(folder: Path) -> list[Arrays]:
    """Training and, if there, test images of a folder that holds data_batch_*.bin, test_batch.bin."""
    test = folder / "test_batch.bin"
    batches = {}
    for path in [*sorted(folder.glob("data_batch_*.bin")), *([test] if test.is_file() else [])]:
        with _naming(path):
            batches[path.name] = _cifar10_batch(path.read_bytes())
    return _train_and_test(batches)


def read_cifar10_archive(path: Path) -> list[Arrays]:
    """As read_cifar10, of the .tar.gz; nothing is unpacked onto the disk."""
    batches = {}
    with _naming(path), gzip.open(path) as file:
        with tarfile.open(fileobj=file, mode="r|") as archive:
            for member in archive:
                if member.size > 10_000 * CIFAR10_RECORD:  # before tarfile spends time and memory on it
                    raise ValueError(f"{member.name} is larger than a batch of CIFAR-10")
                name = member.name.rpartition("/")[2]
                if member.isreg() and re.fullmatch(r"data_batch_[1-5]\.bin|test_batch\.bin", name):
                    with _naming(Path(member.name)):
                        batches[name] = _cifar10_batch(cast(BinaryIO, archive.extractfile(member)).read())
        while file.read(CHUNK):  # to the end, where gzip checks its CRC
            pass
        return _train_and_test(batches)


def _cifar10_batch(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    if not content or len(content) % CIFAR10_RECORD:
        raise ValueError(f"{len(content)} bytes are not whole records of {CIFAR10_RECORD}")
    records = np.frombuffer(content, np.uint8).reshape(-1, CIFAR10_RECORD)
    if (label := records[:, 0].max()) > 9:
        raise ValueError(f"labels must be 0 to 9, got {label}")
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]


def _train_and_test(batches: dict[str, tuple[np.ndarray, np.ndarray]]) -> list[Arrays]:
    test = batches.pop("test_batch.bin", None)
    if not batches:
        raise ValueError("holds no data_batch_*.bin, so it is not the binary version of CIFAR-10")
    images, labels = zip(*(batches[name] for name in sorted(batches)), strict=True)
    train = np.concatenate(images), np.concatenate(labels)
    return [train] if test is None else [train, test]


# NumPy's .npz: a zip of .npy files.


def read_npz(path: Path) -> tuple[np.ndarray, np.ndarray | None, int]:
    """(images, labels or None, levels) of an .npz.

    `images`: integers 0 to 255, or bool (2 levels); (N, H, W), (N, C, H, W) or (N, H, W, C) with C 1 or 3,
    the second where both fit. `labels`, optional: (N,), integers. `levels`, optional: an integer, else 256.
    """
    with _naming(path), zipfile.ZipFile(path) as archive:
        limit = DEFLATE_RATIO * path.stat().st_size
        images, labels, levels = (_npy(archive, name, limit) for name in ("images", "labels", "levels"))
        if images is None:
            raise ValueError("holds no array named images")
        if levels is None:
            levels = np.array(2 if images.dtype == bool else 256)
        if levels.size != 1:
            raise ValueError(f"levels must be one number, got shape {levels.shape}")
        if images.size and not 0 <= images.min() <= images.max() <= 255:
            raise ValueError(f"pixels must be 0 to 255, got {images.min()} to {images.max()}")
        return _channels_first(images.astype(np.uint8)), labels, int(levels.item())


def _npy(archive: zipfile.ZipFile, name: str, limit: int) -> np.ndarray | None:
    """An array of integers or bools in the archive, or None; sizes are checked before they are allocated."""
    if f"{name}.npy" not in archive.namelist():
        return None
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is compressed in a way that NumPy doesn't write")
    if info.file_size > limit:
        raise ValueError(f"{name} claims {info.file_size} bytes, more than the file can hold")
    try:
        content = archive.read(info)
        stream = io.BytesIO(content)
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
        else:
            shape, fortran_order, dtype = np.lib.format.read_array_header_2_0(stream)
    except Exception as error:  # garbage is met with errors of many kinds by zipfile and by NumPy's parser
        raise ValueError(f"{name} can't be read as an array of NumPy's ({error})") from error
    if dtype.kind not in "biu":
        what = "Python objects, which are never loaded" if dtype.hasobject else str(dtype)
        raise ValueError(f"{name} must be integers or bool, got {what}")
    start = stream.tell()
    if min(shape, default=1) < 0 or math.prod(shape) * dtype.itemsize != len(content) - start:
        raise ValueError(f"{name} has not the size of the shape {shape} in its header")
    return np.frombuffer(content, dtype, offset=start).reshape(shape, order="F" if fortran_order else "C")


def _channels_first(images: np.ndarray) -> np.ndarray:
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[1] in (1, 3):
        return images
    if images.ndim == 4 and images.shape[3] in (1, 3):
        return images.transpose(0, 3, 1, 2)
    wanted = "(N, H, W), (N, C, H, W) or (N, H, W, C) with C 1 or 3"
    raise ValueError(f"images must be {wanted}, got {images.shape}")


# NumPy's .npy, which can be larger than memory, with the labels beside it.


def read_npy(path: Path) -> tuple[np.ndarray | MappedImages, np.ndarray | None, int]:
    """(images, labels or None, levels) of NAME.npy and, if it is there, NAME.labels.npy.

    Images: uint8, or bool (2 levels), in the shapes of an .npz. Files of more than 128 MiB stay on the disk: their
    images are read when they are indexed. Labels: (N,), integers or bool.
    """
    with _naming(path):
        file = _mapped(path)
        if file.dtype not in (np.uint8, bool):
            raise ValueError(f"images must be uint8 or bool, got {file.dtype}: np.save(path, images.astype(np.uint8))")
        images, levels = _channels_first(file.view(np.uint8)), 2 if file.dtype == bool else 256
        values = np.minimum(np.arange(256), levels - 1).astype(np.uint8)  # whatever bytes a bool may have
    labels = None
    if (beside := labels_of(path)).exists():
        with _naming(beside):
            labels = np.array(_mapped(beside))
            if labels.dtype.kind not in "biu":
                raise ValueError(f"labels must be integers or bool, got {labels.dtype}")
            if labels.shape != (len(images),):
                raise ValueError(f"labels must be ({len(images)},), one for each image, got {labels.shape}")
    if images.nbytes <= mapped.IN_MEMORY:
        return values[images], labels, levels
    return MappedImages(images, values=None if levels == 256 else values), labels, levels


def labels_of(path: Path) -> Path:
    """Where the labels of an .npy of images lie."""
    return path.with_suffix(".labels.npy")


def _mapped(path: Path) -> np.ndarray:
    """A memory map of an .npy's array; it is refused unless the file has the size of its header's shape."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:  # garbage is met with errors of many kinds by NumPy's parser
        raise ValueError(f"can't be read as an array of NumPy's ({error})") from error
    if array.offset + array.nbytes != path.stat().st_size:
        raise ValueError(f"has not the size of the shape {array.shape} in its header")
    return array
