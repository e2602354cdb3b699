"""The page on which people judge whether images are real (Zhou et al. 2019, HYPE), and what they answered.

Nothing in the page tells real images from generated ones. All are PNGs of the same options without compression, and so
of the same length; they stand in an order that can be found only by whom who knows them apart. That knowledge is the
key, which isn't in the page. A page with a time limit must know whether an answer was right, to show the next image
longer or shorter: it holds a bit an image, which looks random beside the images. That keeps it from being seen, not
from being computed.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import io
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinygen.markup import text
from tinygen.report.files import write_text
from tinygen.report.parts import page as whole_page

TIMINGS = {
    False: "Take as long as you like for each.",
    True: "Each is shown only briefly, after a cross on which to keep your eyes, and is followed by flickering noise. "
    "Flashes may be harmful to people with epilepsy.",
}


class Key(NamedTuple):
    """What the page doesn't tell.

    page: its name, 12 hexadecimal digits. real: (images,) bool, in the page's order. timed: whether time is limited.
    """

    page: str
    real: np.ndarray
    timed: bool


class Sitting(NamedTuple):
    """What one person answered, image by image in the order in which they were shown.

    images: their places in the page. said_real: bool. shown: ms, for how long; empty without a time limit.
    """

    page: str
    name: str
    images: np.ndarray
    said_real: np.ndarray
    shown: np.ndarray


def write(path: Path, real: np.ndarray, generated: np.ndarray, levels: int, data: str, timed: bool) -> Key:
    """Write the page of images (N, C, H, W) uint8, 0 .. levels - 1, half of them real; gives its key.

    data: the name of the data set. Needs Pillow.
    """
    sources = [_source(image, levels) for image in (*real, *generated)]
    secret = hashlib.sha256("".join(sources).encode())  # of the images in this order: known only with the key
    order = np.random.default_rng(int.from_bytes(secret.digest())).permutation(len(sources))
    sources, is_real = [sources[i] for i in order], order < len(real)
    name = hashlib.sha256("".join([*sources, str(timed)]).encode()).hexdigest()[:12]
    content: dict[str, Any] = {"page": name, "timed": timed, "images": sources}
    if timed:
        code = (_bit(name + source) ^ int(known) for source, known in zip(sources, is_real, strict=True))
        content["code"] = "".join(map(str, code))
    own = importlib.resources.files("tinygen.report")
    body = own.joinpath("hype.html").read_text(encoding="utf-8")
    script = own.joinpath("hype.js").read_text(encoding="utf-8")
    known = {"n": str(len(sources)), "data": text(data), "timing": TIMINGS[timed], "page": json.dumps(content)}
    for place, value in (known | {"script": script}).items():
        body = body.replace(f"{{{place}}}", value, -1)
    write_text(path, whole_page("Real or generated?", [body]))
    return Key(name, is_real, timed)


def _source(image: np.ndarray, levels: int) -> str:
    """An image (C, H, W) as a data URI of a PNG, of the same length for all images of one shape."""
    from PIL import Image

    pixels = np.round(image * (255 / (levels - 1))).astype(np.uint8).transpose(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, format="PNG", compress_level=0)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _bit(text: str) -> int:
    """hype.js's `bit`: the lowest bit of a text's FNV-1a hash."""
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return (value ^ value >> 16) & 1


def write_key(folder: Path, key: Key) -> Path:
    """Keep a key in a folder, under the page's name."""
    path = folder / f"hype-{key.page}.json"
    content = {"page": key.page, "timed": key.timed, "real": np.flatnonzero(key.real).tolist(), "images": len(key.real)}
    write_text(path, json.dumps(content) + "\n")
    return path


def read_key(folder: Path, page: str) -> Key:
    """The key of a page. Raises ValueError if the folder has none."""
    path = folder / f"hype-{page}.json"
    if not path.exists():
        raise ValueError(f"{folder} has no key of the page {page}: it belongs to another run")
    found = json.loads(path.read_text(encoding="utf-8"))
    real = np.zeros(found["images"], bool)
    real[found["real"]] = True
    return Key(page, real, found["timed"])


def read_answers(paths: Iterable[Path]) -> list[Sitting]:
    """The sittings in files, which hold a line of JSON each, or several.

    Raises ValueError for a line that isn't one of the page's, and for a sitting that is there twice.
    """
    found: dict[str, Sitting] = {}
    for path in paths:
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if not line.strip():
                continue
            sitting = _sitting(line, f"{path}, line {number}")
            if sitting.name in found:
                raise ValueError(f"{path}, line {number}: the answers of sitting {sitting.name} are there twice")
            found[sitting.name] = sitting
    return list(found.values())


def _sitting(line: str, where: str) -> Sitting:
    try:
        content = json.loads(line)
        page, name, answers = content["page"], content["sitting"], content["answers"]
        if not re.fullmatch("[0-9a-f]{12}", page) or not isinstance(name, str):
            raise ValueError("no page of tinygen's")
        said = [{"real": True, "generated": False}[answer["answer"]] for answer in answers]
        images = np.array([answer["image"] for answer in answers], np.int64)
        shown = np.array([answer["shown"] for answer in answers if "shown" in answer], np.float64)
    except (ValueError, TypeError, KeyError, OverflowError) as e:
        raise ValueError(f"{where}: must be the line that the page gives at its end, got {line[:60]!r}") from e
    return Sitting(page, name, images, np.array(said, bool), shown)
