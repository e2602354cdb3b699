"""How good generated images are: the metrics of a model without a likelihood, each with its calibration."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from tinygen.baselines.pca import PCA
from tinygen.console import progress
from tinygen.data import Dataset
from tinygen.metrics.distance import frechet_distance, nearest, precision_recall
from tinygen.metrics.features import class_names, feature_net, has_features
from tinygen.metrics.metric import Metric

MOST = 10_000  # images of each kind
NEIGHBORS = 500  # images whose nearest training image is looked for


class Calibration(NamedTuple):
    """The numbers of images of known quality, by name: distance, precision, recall, shares of the classes."""

    distance: dict[str, float]
    precision: dict[str, float]
    recall: dict[str, float]
    shares: dict[str, np.ndarray]


def quality(images: np.ndarray, train: Dataset, test: Dataset) -> list[Metric]:
    """How good generated images (N, C, H, W) uint8 are; 10,000 of them, or as many as test images, are enough.

    FD*: the Frechet distance to the test images between the features of a network trained on the data set
    (`feature_net`), whose weights' hash the name tells: below the PCA-Gaussian's, or a linear model does better.
    Precision and recall: the share of the images that look real, and of real images that are within the model's reach.
    The share of the rarest class, by the same network, beside its share of known images and those of the other classes.
    The memorization ratio: the median distance to the nearest training image, pixel by pixel, of generated images over
    that of test images: far below 1, the model repeats its training images.

    Without features (`has_features`), or with fewer than 4 images, the memorization ratio alone is given.
    """
    n = min(len(images), len(test), MOST)
    metrics = []
    if has_features(train) and n > 3:
        progress(0.0, "training the feature network")
        net = feature_net(train)
        progress(0.3, "calibrating")
        known = calibration(train, test)
        progress(0.7, "comparing features")
        real, (fake, classes) = net.of(test.images[:n])[0], net.of(images[:n])
        precision, recall = precision_recall(real, fake)
        metrics = [
            Metric(f"FD* (features {net.digest})", frechet_distance(real, fake), "", None, known.distance, True),
            Metric("precision", precision, "", None, known.precision, False),
            Metric("recall", recall, "", None, known.recall, False),
            rarest(classes, train, known.shares),
        ]
    progress(0.9, "looking for training images among the samples")
    return [
        *metrics,
        Metric("memorization ratio", memorization(images, train, test), baselines={"copies": 0.0, "new": 1.0}),
    ]


def rarest(classes: np.ndarray, train: Dataset, known: Mapping[str, np.ndarray] = MappingProxyType({})) -> Metric:
    """The share in percent of the class that occurs least among classes (N,), beside those of all the others.

    known: before them, its share of images of known quality: the shares of all classes (`shares`) by name.
    """
    names, found = class_names(train), shares(classes, train)
    least = int(found.argmin())
    others = {name: float(share) for i, (name, share) in enumerate(zip(names, found, strict=True)) if i != least}
    baselines = {name: float(share[least]) for name, share in known.items()}
    return Metric(f"rarest class, {names[least]}", float(found[least]), "%", baselines=baselines | others)


def shares(classes: np.ndarray, train: Dataset) -> np.ndarray:
    """How many percent of classes (N,) each class is, (number of classes,)."""
    return 100 * np.bincount(classes, minlength=len(class_names(train))) / len(classes)


@functools.lru_cache(maxsize=4)
def calibration(train: Dataset, test: Dataset) -> Calibration:
    """The numbers of training images, blurred test images, and a linear model: a Gaussian of the pixels."""
    n, net = min(len(train), len(test), MOST), feature_net(train)
    real = net.of(test.images[:n])[0]
    known = {"real images": train.images[:n], "blurred": blurred(test.images[:n]), "PCA-Gaussian": gaussian(train, n)}
    seen = {name: net.of(images) for name, images in known.items()}
    within = {name: precision_recall(real, features) for name, (features, _) in seen.items()}
    return Calibration(
        {name: frechet_distance(real, features) for name, (features, _) in seen.items()},
        {name: precision for name, (precision, _) in within.items()},
        {name: recall for name, (_, recall) in within.items()},
        {name: shares(classes, train) for name, (_, classes) in seen.items()},
    )


def blurred(images: np.ndarray) -> np.ndarray:
    """Images (N, C, H, W) uint8 smoothed by (1, 2, 1) / 4 along both axes, the border repeated."""
    x: np.ndarray = np.pad(images.astype(np.float32), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    for axis in (2, 3):
        low, middle, high = (x.take(range(i, x.shape[axis] - 2 + i), axis) for i in range(3))
        x = (low + 2 * middle + high) / 4
    return np.round(x).astype(np.uint8)


def sharpness(images: np.ndarray) -> float:
    """The variance of the Laplacian of images (N, C, H, W), a pixel less its neighbors' mean; blurring lowers it.

    Source: as a measure of focus, Pech-Pacheco, Cristobal, Chamorro-Martinez & Fernandez-Valdivia (2000).
    """
    x = images.astype(np.float32)
    around = x[..., :-2, 1:-1] + x[..., 2:, 1:-1] + x[..., 1:-1, :-2] + x[..., 1:-1, 2:]
    return float((x[..., 1:-1, 1:-1] - around / 4).var())


def gaussian(train: Dataset, n: int, components: int = 64, seed: int = 0) -> np.ndarray:
    """n images from the Gaussian with the mean and principal components of the training images, (n, C, H, W) uint8."""
    pca = PCA(train.images, min(components, len(train), train.images[0].size))
    z = np.random.default_rng(seed).standard_normal((n, len(pca.variance)))[:, ::-1]  # the least component's come first
    x = pca.decode(z * np.sqrt(pca.variance))
    return np.round(np.clip(x, 0, train.levels - 1)).astype(np.uint8).reshape(n, *train.images.shape[1:])


def memorization(images: np.ndarray, train: Dataset, test: Dataset) -> float:
    """The median distance of images to the nearest training image, over that of test images (first 500 of each)."""
    among = train.images.reshape(len(train), -1)
    first = (x[:NEIGHBORS].reshape(-1, among.shape[1]) for x in (images, test.images))
    fake, real = (float(np.median(nearest(x, among)[1])) for x in first)
    return fake / max(real, 1e-12)
