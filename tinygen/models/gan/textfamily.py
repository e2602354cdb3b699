"""How GANs with captions are measured and shown: is an image what its caption says?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from tinygen.data import Dataset
from tinygen.metrics.features import feature_net, has_features
from tinygen.metrics.metric import ImageGrid, Metric, Plot
from tinygen.metrics.quality import MOST, quality
from tinygen.models.family import PlotOf
from tinygen.models.gan import plots
from tinygen.models.gan.family import GANFamily
from tinygen.models.interpolation import interpolation

SHOWN, UNSEEN = 6, 2000  # images of a caption, in a row; images of combinations that were held out
IGNORED = 1.25  # times chance: how often images are as asked for if they ignore the caption
NAMES = "class", "brightness", "width"


def share(name: str, right: Any, real: Any, values: int) -> Metric:
    """How many percent of images are right, of (N,) bool, beside real ones and chance, one of so many values."""
    known = {"real images": 100 * float(real.mean()), "chance": 100 / values}
    return Metric(name, 100 * float(right.mean()), "%", baselines=known, lower_is_better=False)


def drawn(model: Any, attributes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An image of each of attributes (N, 3), by a caption that says so: (N, C, H, W) uint8."""
    captions = model.condition.captions
    rows = captions.numbers(captions.write(attributes, rng))
    return model.sample(len(rows), rng, labels=rows)


def as_asked(model: Any, images: np.ndarray, attributes: np.ndarray, train: Dataset) -> np.ndarray:
    """Whether each of the attributes (N, 3) is what is measured on the images, (N, 3) bool.

    The class is that of the feature network, right where there is none; brightness and width are measured for the class
    that was asked for.
    """
    captions = model.condition.captions
    found = captions.describe(images / (model.levels - 1), attributes[:, 0], model.pair.edges.numpy())
    if captions.sizes[0] > 1 and has_features(train):
        found[:, 0] = feature_net(train).of(images)[1]
    return found == attributes


def words(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """Six images of a caption in a row, one caption for each class; each in a combination never trained on."""
    captions = model.condition.captions
    attributes = captions.draw(1000, rng, held_out=True)
    attributes = attributes[np.unique(attributes[:, 0], return_index=True)[1]]
    texts = captions.write(attributes, rng)
    rows = captions.numbers(texts).repeat(SHOWN, axis=0)
    about = "Captions of combinations that no training image had"
    return ImageGrid(model.sample(len(rows), rng, labels=rows), SHOWN, about, rows=texts)


def changes(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """The same noise with every brightness and width, a kind a row: a caption below each image says which."""
    captions = model.condition.captions
    kinds = np.arange(min(captions.sizes[0], SHOWN))
    attributes = np.array([(kind, i // 2, i % 2) for kind in kinds for i in range(6)])
    z = model.codes(len(kinds), rng).repeat(6, axis=0)
    texts = captions.write(attributes, rng)
    images = model.images(z, captions.numbers(texts))
    return ImageGrid(images, 6, "The same noise, told six captions", under=texts)


class TextFamily(GANFamily):
    """Of GANs whose condition is `Text`."""

    plots: ClassVar[Mapping[str, PlotOf]] = {
        "words": words, "changes": changes, "neighbors": plots.neighbors, "interpolate": interpolation,
    }  # fmt: skip

    def progress(self, model: Any, parts: dict[str, float]) -> str:
        return f"{super().progress(model, parts)}  D(x, wrong) {parts['wrong']:.2f}  as asked {parts['asked']:.0%}"

    def diagnostics(self, model: Any, parts: dict[str, float]) -> list[str]:
        found, chance = super().diagnostics(model, parts), 1 / np.prod(model.condition.captions.sizes[1:])
        if parts["asked"] < IGNORED * chance:
            found.append(
                f"images ignore the caption: brightness and width are as asked for in {parts['asked']:.0%} (by chance "
                f"{chance:.0%}); D gives right captions {parts['real']:.2f}, wrong ones {parts['wrong']:.2f}"
            )
        return found

    def metrics(self, model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> list[Metric]:
        """Quality as of other GANs, and how often what a caption asks for is seen in the image, beside real images."""
        captions, n = model.condition.captions, min(len(test), MOST)
        asked = captions.draw(n, rng)
        images = drawn(model, asked, rng)
        found = quality(images, train, test)
        real = captions.describe(test.images / (test.levels - 1), test.labels, model.pair.edges.numpy())
        right, known = as_asked(model, images, asked, train), as_asked(model, test.images, real, train)
        for i, name in enumerate(NAMES):
            if captions.sizes[i] > 1:
                found.append(share(f"{name} as asked for", right[:, i], known[:, i], captions.sizes[i]))
        asked = captions.draw(min(n, UNSEEN), rng, held_out=True)
        unseen, combinations = as_asked(model, drawn(model, asked, rng), asked, train), int(np.prod(captions.sizes))
        found.append(share("all of it as asked for", right.all(axis=1), known.all(axis=1), combinations))
        found.append(share("the same, of combinations never seen", unseen.all(axis=1), known.all(axis=1), combinations))
        return found
