"""AnoGAN: which images could the generator not have made? Of any trained GAN (the GAN zoo, lecture slide 134).

The code of an image is searched for by gradient descent, z* = argmin A(x, z); what is left then is the anomaly score:
A(x, z) = (1 - lambda) |x - G(z)| + lambda |f(x) - f(G(z))|, where |.| sums absolute values and f are features, what D's
last layer sees. Nothing is trained: G and D stay what they are.

Source: Schlegl et al., Unsupervised Anomaly Detection with Generative Adversarial Networks to Guide Marker Discovery
(2017), section 2.2; Adam, from the best of some random codes, stands for its gradient descent from one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tinygen import Tensor, grad, nn, no_grad, optim
from tinygen.data import Dataset, subset
from tinygen.metrics.distance import auroc
from tinygen.metrics.metric import ImageGrid, Metric, Plot

LAMBDA = 0.1  # the weight of the features
STEPS, LR, STARTS = 100, 0.1, 8  # of the search; random codes of which it begins with the best
MEASURED, SHOWN, COLUMNS = 200, 40, 10  # images: that are scored, of which some are shown, so many


class Found(NamedTuple):
    """What a search found for each image: the least score (N,), and the code (N, latent) and class (N,) that has it."""

    scores: np.ndarray
    z: np.ndarray
    labels: np.ndarray | None


def scores(model: Any, x: Tensor, z: Tensor, labels: np.ndarray | None = None) -> Tensor:
    """A(x, z) of scaled images (N, C, H, W) and codes (N, latent), (N,); differentiable in z."""
    pair, axes = model.pair, tuple(range(1, x.ndim))
    fake = pair.generator(pair.with_classes(z.reshape(len(z), *pair.noise), labels))
    fake = fake[:, : x.shape[1]]  # of CoGAN, the first domain's
    residual, f = (x - fake).abs().sum(axes), layers_below_last(pair.discriminator)
    seen = [f(pair.with_classes(image, labels) if pair.objective.told else image) for image in (x, fake)]
    difference = (seen[0].detach() - seen[1]).reshape(len(x), -1).abs().sum(1)
    return (1 - LAMBDA) * residual + LAMBDA * difference


def layers_below_last(discriminator: nn.Module) -> nn.Sequential:
    """The layers of D, or of its part that sees the image, below its last one with weights."""
    layers = list(next(m for m in discriminator.modules() if isinstance(m, nn.Sequential)))
    last = max(i for i, layer in enumerate(layers) if any(True for _ in layer.parameters()))
    return nn.Sequential(*layers[: last or None])


def search(model: Any, x: Tensor, z: np.ndarray, labels: np.ndarray | None = None, steps: int = STEPS) -> Found:
    """The least score of images (N, C, H, W) that so many steps of Adam come by from codes z (N, latent), and where."""
    code, best, where = x.new_tensor(z, requires_grad=True), np.full(len(z), np.inf), np.array(z)
    adam = optim.Adam([code], LR)
    for step in range(steps + 1):
        found = scores(model, x, code, labels)
        better = found.numpy() < best
        best[better], where[better] = found.numpy()[better], code.numpy()[better]
        if step < steps:
            (code.grad,) = grad(found.sum(), code)
            adam.step()
    return Found(best, where, labels)


def anomalies(model: Any, images: np.ndarray, rng: np.random.Generator, steps: int = STEPS) -> Found:
    """`search` of images (N, C, H, W) uint8, each from the best of 8 random codes. The model in evaluation mode."""
    x, n = model.scale(images), len(images)
    starts = [(model.codes(n, rng), model.condition.draw(n, rng)) for _ in range(STARTS)]
    with no_grad():
        first = np.stack([scores(model, x, x.new_tensor(z), labels).numpy() for z, labels in starts])
    best, every = first.argmin(axis=0), np.arange(n)
    z = np.stack([z for z, _ in starts])[best, every]
    labels = np.stack([labels for _, labels in starts])[best, every] if model.condition else None
    return search(model, x, z, labels, steps)


def unseen(train: Dataset, test: Dataset) -> np.ndarray:
    """Which test images (N,) are of classes that the training set has none of."""
    if train.labels is None or test.labels is None:
        return np.zeros(len(test), bool)
    return ~np.isin(test.labels, train.labels)


def detection(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> list[Metric]:
    """How well scores tell images of unseen classes from others, of 100 each at most; none where all were seen."""
    strange = unseen(train, test)
    if strange.all() or not strange.any():
        return []
    chosen = np.concatenate([np.flatnonzero(kind)[: MEASURED // 2] for kind in (strange, ~strange)])
    found = anomalies(model, test.images[chosen], rng)
    value = auroc(found.scores[strange[chosen]], found.scores[~strange[chosen]])
    return [Metric("AUROC of unseen classes", value, baselines={"chance": 0.5}, lower_is_better=False)]


def anomalies_plot(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """Test images with the lowest and the highest anomaly scores, what the generator makes of them, the difference."""
    some = subset(test, slice(SHOWN))
    found = anomalies(model, some.images, rng)
    order = np.argsort(found.scores, kind="stable")
    shown = np.concatenate([order[: COLUMNS // 2], order[-(COLUMNS - COLUMNS // 2) :]])
    images, labels = some.images[shown], None if found.labels is None else found.labels[shown]
    made = model.images(found.z[shown], labels)
    rows = np.stack([images, made, np.abs(images.astype(np.int64) - made).astype(np.uint8)])
    across = [f"{found.scores[i]:.0f}" for i in shown]
    caption = f"The lowest and the highest anomaly scores of {len(some)} test images"
    return ImageGrid(
        rows.reshape(-1, *images.shape[1:]), len(shown), caption, None, ["test image", "G(z*)", "difference"], across,
        ("", "score"),
    )  # fmt: skip
