"""Where data sets come from: the package itself, this machine, or the network, once."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from tinygen.cache import cache_folder
from tinygen.data.dataset import Dataset, subset
from tinygen.data.download import download
from tinygen.data.folders import read_folder
from tinygen.data.formats import (
    CIFAR10_ARCHIVE,
    Arrays,
    labels_of,
    mnist_file,
    read_cifar10,
    read_cifar10_archive,
    read_mnist,
    read_npy,
    read_npz,
)
from tinygen.data.split import held_out

TESTED = 10, 10_000  # one of so many images is tested on, but no more than so many in all
DIGITS = tuple("0123456789")
FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class _Source:
    """A named set: its classes, its files (lines of name, bytes, SHA-256) and where they are or come from."""

    classes: tuple[str, ...]
    url: str
    table: str
    folders: tuple[Path, ...] = ()
    advice: str = ""

    @property
    def files(self) -> list[tuple[str, int, str]]:
        rows = (line.split() for line in self.table.strip().splitlines())
        return [(name, int(size), sha256) for name, size, sha256 in rows]


# Sizes and checksums as in TensorFlow Datasets (tensorflow_datasets/url_checksums).
_SOURCES = {
    "fashion-mnist": _Source(  # Xiao, Rasul and Vollgraf, 2017, https://arxiv.org/abs/1708.07747, MIT license
        FASHION,
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        """
train-images-idx3-ubyte.gz 26421880 3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84
train-labels-idx1-ubyte.gz    29515 a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845
t10k-images-idx3-ubyte.gz   4422102 346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073
t10k-labels-idx1-ubyte.gz      5148 67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5
""",
        (Path("/usr/share/datasets/fashion-mnist"),),
        "install Debian's package dataset-fashion-mnist, or ",
    ),
    "mnist": _Source(  # LeCun, Cortes and Burges, http://yann.lecun.com/exdb/mnist
        DIGITS,
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        """
train-images-idx3-ubyte.gz  9912422 440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609
train-labels-idx1-ubyte.gz    28881 3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c
t10k-images-idx3-ubyte.gz   1648877 8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6
t10k-labels-idx1-ubyte.gz      4542 f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6
""",
    ),
    "cifar10": _Source(  # Krizhevsky, 2009, https://www.cs.toronto.edu/~kriz/cifar.html
        CIFAR10,
        "https://www.cs.toronto.edu/~kriz/",
        f"{CIFAR10_ARCHIVE} 170052171 c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    ),
}
NAMES = ("digits", *_SOURCES)


def load(name_or_path: str | os.PathLike[str], size: int | None = None) -> tuple[Dataset, Dataset]:
    """(train, test) of a named data set or of the user's own files.

    Names (they win over a path of the same name; write ./digits for that):

    - "digits": 1,797 images of 8x8 pixels and 17 levels, part of this package. The first 1,437 in the order
      of the original file are the training set, the last 360 the test set. E. Alpaydin and C. Kaynak, Optical
      Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998,
      https://doi.org/10.24432/C50P49, license CC BY 4.0.
    - "fashion-mnist", "mnist" (60,000 / 10,000 images of 28x28 pixels), "cifar10" (50,000 / 10,000 of
      3x32x32), 8 bits: from Debian's dataset-fashion-mnist, else from the cache, which is
      XDG_CACHE_HOME/tinygen or ~/.cache/tinygen, else downloaded into the cache.

    Paths: a folder of MNIST's IDX files (plain or .gz), of CIFAR-10's binary batches or their .tar.gz, or of
    PNG, JPEG and WebP files (see `tinygen.data.folders`: subfolders are classes; folders train and test are those
    sets); a .tar.gz of CIFAR-10; an .npz with `images` and perhaps `labels` and `levels`; an .npy of images, which may
    be larger than memory, with its labels beside it in NAME.labels.npy.

    Where there is no test set, a tenth of the images is it, at most 10,000, drawn by `held_out`.

    size: height and width that the images of a folder are resized to.

    Raises ValueError for an unknown name (with the nearest one) and for damaged or unfitting files,
    FileNotFoundError for a missing path, and for a named set that is not here and can't be downloaded.
    """
    train, test = _load(name_or_path, size)
    if size is not None and train.images.shape[2:] != (size, size):
        height, width = train.images.shape[2:]
        raise ValueError(f"--size resizes the PNG, JPEG and WebP files of a folder; {train.name} is of another kind, "
                         f"its images are {width}x{height}: leave --size out")  # fmt: skip
    return train, test


def _load(name_or_path: str | os.PathLike[str], size: int | None) -> tuple[Dataset, Dataset]:
    if name_or_path == "digits":
        return _digits()
    if isinstance(name_or_path, str) and name_or_path in _SOURCES:
        return _from_folder(_located(name_or_path), name_or_path, _SOURCES[name_or_path].classes)
    if name_or_path == "":
        raise ValueError("there is no data set without a name: give one, or the path of a file or folder, '.' for this")
    path = Path(name_or_path)
    if path.is_dir():
        return _from_folder(path, path.resolve().name, size=size)
    if path.is_file():
        return _from_file(path)
    if not isinstance(name_or_path, str) or os.sep in name_or_path or path.suffix:
        raise FileNotFoundError(f"{path}: no such file or folder")
    near = difflib.get_close_matches(path.name.lower(), NAMES, 1)
    hint = f", did you mean {near[0]!r}?" if near else ":"
    known = f"known are {', '.join(NAMES)} and paths of files and folders"
    raise ValueError(f"there is no data set {path.name!r}{hint} {known}")


def _digits() -> tuple[Dataset, Dataset]:
    images, labels, levels = read_npz(Path(__file__).with_name("digits.npz"))
    whole = Dataset(images, levels, labels, "digits", DIGITS)
    return subset(whole, slice(1437)), subset(whole, slice(1437, None))


def _located(name: str) -> Path:
    """A folder with all files of a named set; what the cache lacks is downloaded."""
    source, cache = _SOURCES[name], cache_folder() / name
    for folder in (*source.folders, cache):
        if all((folder / file).is_file() for file, _, _ in source.files):
            return folder
    try:
        for file, size, sha256 in source.files:
            if not (cache / file).is_file():
                download(source.url + file, cache / file, size, sha256)
    except OSError as error:
        raise FileNotFoundError(
            f"{name} is not on this machine and can't be downloaded to {cache} ({error}): "
            f"{source.advice}give a folder that holds its files (--data FOLDER)"
        ) from error
    return cache


def _from_folder(
    folder: Path, name: str, classes: tuple[str, ...] = (), size: int | None = None
) -> tuple[Dataset, Dataset]:
    if mnist_file(folder, "train", "images-idx3"):
        return _pair(read_mnist(folder), name, classes)
    if any(folder.glob("data_batch_*.bin")):
        return _pair(read_cifar10(folder), name, CIFAR10)
    if (folder / CIFAR10_ARCHIVE).is_file():
        return _pair(read_cifar10_archive(folder / CIFAR10_ARCHIVE), name, CIFAR10)
    found = read_folder(folder, size)
    return _pair(found.sets, name, found.classes, notes=found.notes)


def _from_file(path: Path) -> tuple[Dataset, Dataset]:
    if path.suffix == ".npz":
        images, labels, levels = read_npz(path)
        return _pair([(images, labels)], path.stem, levels=levels)
    if path.suffix == ".npy":
        mapped, labels, levels = read_npy(path)
        beside = () if labels is not None else (f"no labels: {labels_of(path)} is not there",)
        return _pair([(cast(np.ndarray, mapped), labels)], path.stem, levels=levels, notes=beside)
    if path.name.endswith((".tar.gz", ".tgz")):
        return _pair(read_cifar10_archive(path), path.name.partition(".")[0], CIFAR10)
    raise ValueError(f"{path}: a data set must be an .npz, an .npy, a .tar.gz of CIFAR-10 or a folder")


def _pair(
    parts: list[Arrays], name: str, classes: tuple[str, ...] = (), levels: int = 256, notes: tuple[str, ...] = ()
) -> tuple[Dataset, Dataset]:
    """(train, test) of one or two (images, labels); labels without names are named by their numbers."""
    if not classes:
        given = [labels for _, labels in parts if labels is not None and labels.size]
        count = max((int(labels.max()) + 1 for labels in given), default=0)
        classes = tuple(map(str, range(count))) if count <= 1 << 16 else ()
    sets = [Dataset(images, levels, labels, name, classes, notes) for images, labels in parts]
    if len(sets) == 1:
        n, labels = len(sets[0]), sets[0].labels
        if n < 3:
            raise ValueError(f"data set {name!r}: must have at least 3 images, 2 to train on and 1 to test on, got {n}")
        tested = held_out(min(-(-n // TESTED[0]), TESTED[1]), n, labels)
        return subset(sets[0], ~tested), subset(sets[0], tested)
    train, test = sets
    if len(train) < 2:
        raise ValueError(f"data set {name!r}: must have at least 2 training images, got 1")
    if test.images.shape[1:] != train.images.shape[1:]:
        shapes = f"{train.images.shape[1:]}, got {test.images.shape[1:]}"
        raise ValueError(f"data set {name!r}: test images must have the training images' (C, H, W) {shapes}")
    return train, test
