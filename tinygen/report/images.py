"""Plots as PNG files: grids of images with their names around them, and charts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinygen.metrics.metric import Chart, ImageGrid, Plot
from tinygen.report.charts import save_chart
from tinygen.report.style import INK, LABEL, PAPER, QUIET, TITLE

GAP = 6  # pixels between images, and around text
SIDE, LABELED, NARROWEST = 512, 720, 360  # about how wide a grid is; with names; and at least with a caption


def save_plot(path: Path, plot: Plot, levels: int) -> None:
    """Write a model's plot; `levels` are the model's."""
    if isinstance(plot, Chart):
        save_chart(path, plot)
    else:
        draw_grid(plot, levels, LABELED if plot.rows or plot.across or plot.under else SIDE).save(path, format="PNG")


def save_grid(path: Path, images: np.ndarray, levels: int, columns: int | None = None, side: int = SIDE) -> None:
    """Write images (N, C, H, W), integers 0 .. levels - 1, as one grid in a PNG about `side` pixels wide.

    C is 1 (gray) or 3 (RGB). Needs Pillow. Raises ValueError for images that can't be shown.
    """
    draw_grid(ImageGrid(images, columns), levels, side).save(path, format="PNG")


def draw_grid(grid: ImageGrid, levels: int, side: int = SIDE) -> Any:
    """A grid as a Pillow image: about `side` pixels of images, and its names, axes and caption around them.

    Each pixel of an image becomes a square of whole pixels, so that nothing is smoothed; it is larger where names need
    the room. levels: the model's. Needs Pillow. Raises ValueError for images that can't be shown.
    """
    from PIL import Image

    images, levels = grid.images, grid.levels or levels
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.size:
        raise ValueError(f"images must be (N, 1 or 3, H, W) with no size 0 to be shown, got {images.shape}")
    n, channels, height, width = images.shape
    columns = grid.columns or math.ceil(math.sqrt(n))
    text = _Text(grid)
    scale = max(
        1,
        round((side / columns - GAP) / width),
        *(math.ceil((w / (b - a) - GAP) / width) for a, b, (w, _) in text.across),
        *(math.ceil((h / (b - a) - GAP) / height) for a, b, (_, h) in text.rows),
        *(math.ceil(text.size(word)[0] / width) for under in grid.under for word in under.split()),
    )
    under = [text.wrapped(name, width * scale, text.font) for name in grid.under]
    below = max((text.size(name)[1] + GAP for name in under), default=0)
    high, wide = height * scale + GAP + below, width * scale + GAP
    picture = np.round(images * (255 / (levels - 1))).astype(np.uint8).transpose(0, 2, 3, 1)
    picture = picture.repeat(scale, axis=1).repeat(scale, axis=2)
    left, top = text.margins(columns * wide + GAP)
    right, bottom = left + columns * wide + GAP, top + math.ceil(n / columns) * high + GAP
    canvas = Image.new("L" if channels == 1 else "RGB", (max(right, text.width), bottom), PAPER)
    for i, image in enumerate(picture[..., 0] if channels == 1 else picture):
        canvas.paste(Image.fromarray(image), (left + GAP + i % columns * wide, top + GAP + i // columns * high))
    text.draw(canvas, (left, top, right, bottom), (wide, high))
    for i, name in enumerate(under):
        place = left + GAP + i % columns * wide, top + GAP + i // columns * high + height * scale + GAP // 2
        text.write(canvas, name, place)
    return canvas


class _Text:
    """The texts around a grid.

    Attributes:
        rows, across: (first, last + 1, size in pixels) of each name of rows and of columns.
        width: how wide the whole picture must be at least.
    """

    def __init__(self, grid: ImageGrid) -> None:
        from PIL import Image, ImageDraw, ImageFont

        self.grid = grid
        self.title, self.font = (ImageFont.load_default(size) for size in (TITLE, LABEL))
        self._measure = ImageDraw.Draw(Image.new("L", (1, 1)))
        self.rows = [(a, b, self.size(name)) for a, b, name in _spans(grid.rows)]
        self.across = [(a, b, self.size(name)) for a, b, name in _spans(grid.across)]
        self.width = NARROWEST if grid.caption else 0

    def size(self, text: str, font: Any = None) -> tuple[int, int]:
        """Width and height with some room."""
        if not text:
            return 0, 0
        left, top, right, bottom = self._measure.multiline_textbbox((0, 0), text, font or self.font)
        return math.ceil(right - left) + GAP, math.ceil(bottom - min(top, 0)) + GAP

    def margins(self, width: int) -> tuple[int, int]:
        """How much is left of images so wide, and above them."""
        down, across = self.grid.axes
        left = self.size(down)[1] + max((w for *_, (w, _) in self.rows), default=-GAP) + GAP
        self.caption = self.wrapped(self.grid.caption, max(left + width, self.width) - 2 * GAP, self.title)
        self.below = self.size(self.caption, self.title)[1] + GAP * bool(self.caption)
        return left, self.below + self.size(across)[1] + max((h for *_, (_, h) in self.across), default=0)

    def write(self, canvas: Any, text: str, place: tuple[int, int]) -> None:
        """Write a text whose upper left corner is there."""
        from PIL import ImageDraw

        ImageDraw.Draw(canvas).multiline_text(place, text, INK, self.font)

    def wrapped(self, text: str, width: int, font: Any) -> str:
        """A text in lines so wide, broken at spaces."""
        lines: list[str] = []
        for word in text.split():
            if lines and font.getlength(f"{lines[-1]} {word}") <= width:
                lines[-1] += f" {word}"
            else:
                lines.append(word)
        return "\n".join(lines)

    def draw(self, canvas: Any, box: tuple[int, int, int, int], pitch: tuple[int, int]) -> None:
        """Write everything around the images, which are in a box (left, top, right, bottom), one every `pitch`."""
        from PIL import Image, ImageDraw

        pen, (left, top, right, bottom), (wide, high) = ImageDraw.Draw(canvas), box, pitch
        down, across = self.grid.axes
        pen.multiline_text((GAP, GAP), self.caption, INK, self.title)
        pen.text(((left + right) // 2, self.below + GAP // 2), across, INK, self.font, anchor="ma")
        if down:
            sideways = Image.new(canvas.mode, self.size(down), PAPER)
            ImageDraw.Draw(sideways).text((GAP // 2, GAP // 2), down, INK, self.font)
            sideways = sideways.rotate(90, expand=True)
            canvas.paste(sideways, (0, max(0, (top + bottom - sideways.height) // 2)))
        for a, b, name in _spans(self.grid.rows):
            start, stop = top + GAP + a * high, top + b * high
            pen.multiline_text((left - GAP // 2, (start + stop) // 2), name, INK, self.font, "rm", align="right")
            if b - a > 1:
                pen.line((left + 1, start, left + 1, stop), QUIET)
        for a, b, name in _spans(self.grid.across):
            start, stop = left + GAP + a * wide, left + b * wide
            pen.multiline_text(((start + stop) // 2, top - GAP // 2), name, INK, self.font, "md", align="center")
            if b - a > 1:
                pen.line((start, top + 1, stop, top + 1), QUIET)


def _spans(names: Sequence[str]) -> list[tuple[int, int, str]]:
    """Each name with the first place that it is for, and the one after the last: it reaches on over empty names."""
    starts = [i for i, name in enumerate(names) if name]
    return [(a, b, names[a]) for a, b in itertools.pairwise([*starts, len(names)])]
