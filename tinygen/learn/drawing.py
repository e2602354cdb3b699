"""How an autoregressive model draws an image, as a page of recorded moments: `tinygen sample RUN --page`.

A moment is a value: what is drawn so far, how likely each level is, given that, and what the model looked at. All of it
comes from one pass over the finished image, since what the model says of a value depends on those before it alone.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinygen import autograd
from tinygen.console import progress
from tinygen.learn import moments
from tinygen.learn.details import number
from tinygen.learn.moments import packed, shares
from tinygen.nn import functional as F

BARS = 32  # of the picture of a distribution, at most; each is of as many levels as the others


class Drawing(NamedTuple):
    """An image (C, H, W), and of its D values in their order: where they stand in (H, W, C), how likely each level was
    (D, levels), and how much log p of the one that was drawn depends on each pixel (D, H * W)."""

    image: np.ndarray
    order: np.ndarray
    chances: np.ndarray
    seen: np.ndarray


def drawing(
    model: Any, rng: np.random.Generator, temperature: float = 1.0, labels: np.ndarray | None = None
) -> Drawing:
    """Draw an image, and look at how it came about.

    model: one that is `Causal` and `Samples` (`tinygen.models.model`), in evaluation; labels: (1,), if it is one of
    classes. seen: |d log p / d pixel|, at temperature 1, summed over a pixel's colors.
    """
    images = model.sample(1, rng, temperature, labels)
    x = model.scale(images).detach()
    x.requires_grad = True
    logits = model.logits(x, labels)
    log_p = -F.cross_entropy(logits, images, reduction="none")  # (1, C, H, W)
    order, rows = model.order(), []
    channels, _, width = model.image_shape
    for i, place in enumerate(order.tolist()):
        progress(i / len(order), "what each value depends on")
        one = np.zeros(log_p.shape, log_p.dtype)
        one[0, place % channels, place // channels // width, place // channels % width] = 1
        (g,) = autograd.grad(log_p, x, log_p.new_tensor(one), retain_graph=True)
        rows.append(np.abs(g.numpy()[0]).sum(axis=0).ravel())
    by_value = logits.numpy()[0].transpose(2, 3, 1, 0).reshape(len(order), -1)[order]
    return Drawing(images[0], order, _chances(by_value, temperature), np.array(rows))


def _chances(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (D, levels), float64; at temperature 0 only the likeliest level has any."""
    below = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    found = np.exp(below / temperature) if temperature else (below == 0).astype(np.float64)
    return found / found.sum(axis=1, keepdims=True)


def write(path: Path, title: str, found: Drawing) -> None:
    """Write the page."""
    channels, height, width = found.image.shape
    levels = found.chances.shape[1]
    drawn = found.image.transpose(1, 2, 0).ravel()[found.order]
    p = found.chances[np.arange(len(drawn)), drawn]
    nats = np.cumsum(-np.log(p))
    looked = (found.seen > 0).sum(axis=1)
    bars = _bars(found.chances)
    content: dict[str, Any] = {
        "height": height, "width": width, "colors": channels, "levels": levels, "per": -(-levels // bars.shape[1]),
        "order": found.order.tolist(), "drawn": drawn.tolist(),
        "moments": [
            {"p": float(f"{p[i]:.4g}"), "nats": float(f"{nats[i]:.5g}"), "looked": int(looked[i]),
             "bars": shares(bars[i]), "seen": packed(_shown(found.seen[i]))} for i in range(len(drawn))
        ],
    }  # fmt: skip
    rows = [
        (i + 1, place // channels // width, place // channels % width, *([place % channels] if channels > 1 else []),
         drawn[i], number(p[i]), number(nats[i]), looked[i]) for i, place in enumerate(found.order)
    ]  # fmt: skip
    columns = ["value", "row", "column", *(["color"] if channels > 1 else []), "level drawn", "its probability",
               "nats so far", "pixels it depends on"]  # fmt: skip
    bits = nats[-1] / (len(drawn) * math.log(2))
    about = f"{len(drawn)} values of {levels} levels. In all -log p = {nats[-1]:.2f} nats, {bits:.3f} bits/dim."
    moments.write(path, "drawing", title, content, columns, rows, about)


def _bars(chances: np.ndarray) -> np.ndarray:
    """The probabilities of levels, or of equally many neighboring ones together: (D, at most BARS)."""
    n, levels = chances.shape
    per = -(-levels // BARS)
    padded = np.pad(chances, ((0, 0), (0, -levels % per)))
    return padded.reshape(n, -1, per).sum(axis=2)


def _shown(seen: np.ndarray) -> np.ndarray:
    """Bytes: 0 only for what isn't seen at all; roots of shares, so that little can be seen, too."""
    share = np.sqrt(seen / max(seen.max(), 1e-30))
    return np.where(seen > 0, np.maximum(1, np.rint(255 * share)), 0).astype(np.uint8)
