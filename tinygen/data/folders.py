"""Folders of images as people have them: PNG, JPEG and WebP of any kind and size, read by Pillow.

What becomes of an image:

- Gray stays gray; a palette and a WebP, which has no gray, count as color. Where one image has color, all are read
  as color.
- 16 bits a channel become 8: the high byte, floor(x / 256), as `quantize` cuts a range.
- What is transparent is laid on white.
- It is turned as its EXIF orientation says; of several frames the first is taken.
- With a size it is resized until its shorter side fits, and the middle is cut out: bicubic with antialiasing, as
  Parmar, Zhang & Zhu (2022, On aliased resizing) advise.

A note counts what became of the images, and what was left out: files of other kinds, hidden files and folders and those
of systems, folders without images. A file that is damaged is refused by name.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp")
FORMATS = ["PNG", "JPEG", "WEBP"]  # whatever the suffix says
SYSTEM = ("__macosx", "__pycache__", "@eadir", "$recycle.bin", "system volume information", "lost+found", "thumbs.db",
          "desktop.ini")  # fmt: skip
TRAIN, TEST = ("train", "training"), ("test", "testing", "val", "valid", "validation")  # the first that is there
NAMED = 4  # names that a note gives of each kind
ORIENTATION = 0x0112  # the EXIF tag

Parts = tuple[str, ...]  # of a path: folders and the file's name
LeftOut = defaultdict[str, list[str]]  # names by reason


class Folder(NamedTuple):
    """The contents of a folder.

    sets: (images (N, C, H, W) uint8, labels (N,) or None) of the training and, if there, of the test set. classes: the
    names of the labels. notes: what was left out and what became of the images: one sentence for people, or none.
    """

    sets: list[tuple[np.ndarray, np.ndarray | None]]
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def read_folder(folder: Path, size: int | None = None) -> Folder:
    """The images in a folder and below it, folder by folder in the order of the names. Needs Pillow.

    Where they lie in subfolders a subfolder is a class, with all that lies below it. A folder that holds nothing but
    one folder with subfolders is passed through. Folders train and test (or training, and testing, val, valid,
    validation) are those sets.

    size: height and width that all images get; None: they must be of one size.

    Raises ValueError for a folder without images, images both in a folder and in its subfolders, test classes that
    aren't the training set's, images of several sizes, and damaged files.
    """
    left_out: LeftOut = defaultdict(list)
    paths = [path.relative_to(folder).parts for path in _below(folder, left_out, _Links(folder.resolve()))]
    if not paths:
        wanted = "train-images-idx3-ubyte[.gz], data_batch_1.bin, cifar-10-binary.tar.gz or PNG, JPEG or WebP files"
        raise ValueError(f"{folder}: holds no images, wanted are {wanted}{_listed(left_out, '; left out: ')}")
    folders, sets = _sets(paths, left_out)
    labels, classes = zip(*(_labeled(folder.joinpath(*f), part) for f, part in zip(folders, sets, strict=True)),
                          strict=True)  # fmt: skip
    if classes[-1] != classes[0]:
        raise ValueError(f"{folder}: test must have train's classes {classes[0]}, got {classes[-1]}")
    seen: Counter[str] = Counter({"deeper than their class's folder": sum(len(p) > 2 for part in sets for p in part)})
    files = [folder.joinpath(*f, *path) for f, part in zip(folders, sets, strict=True) for path in part]
    images = _decoded(files, size, seen)
    facts = [f"{count:,} {what}" for what, count in seen.items() if count]
    told = "; ".join(filter(None, [*facts, _listed(left_out, "left out: ")]))
    cut = np.split(images, [len(sets[0])])[: len(sets)]
    return Folder(list(zip(cut, labels, strict=True)), classes[0],
                  (f"of the {len(images):,} images in {folder.name}: {told}",) if told else ())  # fmt: skip


# ------------------------------------------------------------------------------------------------- which files are read


class _Links:
    """Which files and folders were reached by links: none is read twice, or the images that are tested were trained on.

    root: the folder that is read, resolved.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.seen = root, set[Path]()

    def known(self, path: Path) -> bool:
        """Whether what a path below a link, or a link, stands for is read anyway; from now on it is."""
        real = path.resolve()
        if real in self.seen or real == self.root or real in self.root.parents or self._is_read(real):
            return True
        self.seen.add(real)
        return False

    def _is_read(self, real: Path) -> bool:
        """Whether it lies below the root, in no hidden folder (where git-annex and DVC keep what they link to)."""
        below = real.relative_to(self.root).parts if self.root in real.parents else ()
        return bool(below) and not any(map(_hidden, below)) and (real.is_dir() or real.suffix.lower() in SUFFIXES)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.casefold() in SYSTEM


def _below(folder: Path, left_out: LeftOut, links: _Links, linked: bool = False) -> list[Path]:
    """The images in a folder and below it, folder by folder, in the order of the names; the rest goes to `left_out`."""
    found: list[Path] = []
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        if _hidden(path.name):
            left_out["hidden or of a system"].append(path.name)
        elif path.is_symlink() and not path.exists():
            left_out["links to nothing"].append(path.name)
        elif path.is_symlink() and path.resolve() in (folder.resolve(), *folder.resolve().parents):
            left_out["linked to a folder above"].append(path.name)
        elif (linked or path.is_symlink()) and links.known(path):
            left_out["linked to what is read anyway"].append(path.name)
        elif path.is_dir():
            inside = _below(path, left_out, links, linked or path.is_symlink())
            found += inside
            if not inside:
                left_out["folders without images"].append(path.name)
        elif path.suffix.lower() in SUFFIXES and path.is_file():
            found.append(path)
        else:
            left_out["not PNG, JPEG or WebP"].append(path.name)
    return found


def _listed(left_out: LeftOut, before: str) -> str:
    """Such as "left out: 2 not PNG, JPEG or WebP (a.bmp, b.txt)"; nothing if nothing is."""
    kinds = []
    for reason, names in left_out.items():
        more = ", ..." if len(names) > NAMED else ""
        kinds.append(f"{len(names):,} {reason} ({', '.join(names[:NAMED])}{more})")
    return before + ", ".join(kinds) if kinds else ""


def _sets(paths: list[Parts], left_out: LeftOut) -> tuple[list[Parts], list[list[Parts]]]:
    """The folders of the training and, if there, of the test set, and for each the paths within it."""
    depth = 0  # of the folder that is meant: those above it hold nothing but one folder
    while all(len(path) > depth + 2 and path[depth] == paths[0][depth] for path in paths):
        depth += 1
    base, paths = paths[0][:depth], [path[depth:] for path in paths]
    names = {path[0].casefold(): path[0] for path in paths if len(path) > 1}
    train, test = (next((names[name] for name in wanted if name in names), None) for wanted in (TRAIN, TEST))
    if train is None or test is None:
        return [base], [paths]
    beside = ["/".join(path) for path in paths if path[0] not in (train, test)]
    if beside:
        left_out[f"beside {train} and {test}"] += beside
    return [(*base, train), (*base, test)], [[path[1:] for path in paths if path[0] == top] for top in (train, test)]


def _labeled(folder: Path, paths: list[Parts]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """(labels, classes) of images by their paths within a folder; (None, ()) where there are no subfolders."""
    classes = sorted({path[0] for path in paths if len(path) > 1})
    if not classes:
        return None, ()
    if any(len(path) == 1 for path in paths):
        raise ValueError(f"{folder}: images lie in the folder and in its subfolders, only one of them can be")
    index = {name: i for i, name in enumerate(classes)}
    return np.array([index[path[0]] for path in paths]), tuple(classes)


# ----------------------------------------------------------------------------------------------- what becomes of images


def _decoded(paths: list[Path], size: int | None, seen: Counter[str]) -> np.ndarray:
    """The images (N, C, H, W) uint8, counting in `seen` what became of them."""
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise ImportError("reading images needs Pillow: pip install pillow") from error
    pixels: list[Any] = []
    for path in paths:
        try:
            pixels.append(_pixels(path, size, seen))
        except Exception as error:  # garbage is met with errors of many kinds by Pillow
            raise ValueError(f"{path}: {error}") from error
        (height, width), first = pixels[-1].shape[:2], pixels[0].shape
        if (height, width) != first[:2]:
            raise ValueError(f"{path}: {width}x{height}, but {paths[0].name} is {first[1]}x{first[0]}: write --size "
                             f"{min(height, width, *first[:2])} to resize all of them, or another number")  # fmt: skip
    channels = max(image.shape[2] for image in pixels)
    images = np.empty((len(pixels), channels, *pixels[0].shape[:2]), np.uint8)
    for i in range(len(pixels)):
        if pixels[i].shape[2] < channels:
            seen["gray, read as color as others are"] += 1
        images[i] = pixels[i].transpose(2, 0, 1)
        pixels[i] = None  # so that the images are in memory once, not twice
    return images


def _pixels(path: Path, size: int | None, seen: Counter[str]) -> np.ndarray:
    """An image as the module says: (H, W, 1) if it is gray, else (H, W, 3)."""
    from PIL import Image, ImageOps

    with Image.open(path, formats=FORMATS) as image:
        image.verify()  # the checksums of a PNG, which decoding alone skips; it uses the image up
    with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
        file.seek(24)  # where a PNG says its bits a channel
        deep = image.format == "PNG" and file.read(1) == b"\x10"
        file.seek(0)
        if deep and "transparency" in image.info:
            raise ValueError("16 bits a channel and one transparent color (tRNS): save it with an alpha channel")
        seen["of several frames, the first taken"] += getattr(image, "n_frames", 1) > 1
        seen["of 16 bits a channel, their low bytes dropped"] += deep
        seen["turned as their EXIF orientation says"] += image.getexif().get(ORIENTATION) in range(2, 9)
        flat = ImageOps.exif_transpose(image)
        if flat.mode in ("I", "I;16"):  # how Pillow gives 16 bits of gray
            flat = Image.fromarray((np.asarray(flat) >> 8).astype(np.uint8))
        flat = _on_white(flat, seen)
    if size is not None and flat.size != (size, size):
        seen[f"resized to {size}x{size}, the middle cut out"] += 1
        seen[f"among these smaller than {size}x{size}, hence enlarged"] += min(flat.size) < size
        flat = ImageOps.fit(flat, (size, size), Image.Resampling.BICUBIC)
    pixels = np.asarray(flat)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _on_white(image: Any, seen: Counter[str]) -> Any:
    """The image in Pillow's mode L, if it is gray, or RGB."""
    from PIL import Image

    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getextrema()[3][0] < 255:
            seen["transparent in parts, laid on white"] += 1
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB").getchannel(0) if mode == "L" and image.mode == "RGBA" else image.convert(mode)
