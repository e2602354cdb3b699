"""What a model's features are worth: classes told by few labels (lecture slides 16, 47 and 48).

    linear probe   the features stay as they are; softmax regression on top
    fine-tuning    a linear layer on top, and all of it is trained

Source: of the probe, Alain & Bengio, Understanding intermediate layers using linear classifier probes (2017).
"""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np

from tinygen import Tensor, nn, optim
from tinygen.baselines.softmax import SoftmaxRegression
from tinygen.data import Dataset, Minibatches, held_out, subset
from tinygen.metrics.features import class_names
from tinygen.metrics.metric import Metric, mean_and_error
from tinygen.models.averages import Averaged
from tinygen.models.networks.encoders import in_batches
from tinygen.nn import functional as F

L2 = 0.1  # of the probe; of .001 to 1 the best, or nearly, for pixels and for random features
SCALED = 5000  # training images, labels unseen, by whose features these are centered and scaled
STEPS, BATCH, LR = 300, 32, 1e-3  # of fine-tuning
ROWS = 500
LABELS, DRAWS = 100, range(5)  # of the probe as a metric: so many, drawn so often


def few(train: Dataset, labels: int, seed: int) -> Dataset:
    """So many images of a training set, in proportion to the classes.

    Raises ValueError for a data set without labels, and for more than there are or fewer than one of each class.
    """
    if train.labels is None:
        raise ValueError(f"the data set {train.name!r} has no labels, by which features could be judged")
    classes = len(np.unique(train.labels))
    if not classes <= labels <= len(train):
        raise ValueError(f"labels must be from {classes}, one of each class, to {len(train):,}, got {labels}")
    if labels == len(train):
        return train
    return subset(train, held_out(labels, len(train), train.labels, seed))


def features(model: Any, images: np.ndarray) -> np.ndarray:
    """The features of images (N, C, H, W) uint8, (N, F). model: one that `HasFeatures`; None: the pixels themselves."""
    if model is None:
        return images.reshape(len(images), -1).astype(np.float32)
    return in_batches(lambda x: model.features(model.network_input(x)), images, ROWS)


def probe(model: Any, train: Dataset, test: Dataset, labels: int, seeds: range) -> np.ndarray:
    """The share of test images that softmax regression tells rightly from features and few labels, (seeds,).

    The features are centered, and scaled by one number, such that their mean square is 1. model: as for `features`.
    """
    known = features(model, train.images[:SCALED])
    middle = known.mean(axis=0)
    scale = max(float(np.sqrt(((known - middle) ** 2).mean())), 1e-12)
    tested, found = (features(model, test.images) - middle) / scale, []
    for seed in seeds:
        some = few(train, labels, seed)
        x = (features(model, some.images) - middle) / scale
        regression = SoftmaxRegression(x, np.asarray(some.labels), len(class_names(train)), L2)
        found.append((regression(tested).argmax(axis=1) == test.labels).mean())
    return np.array(found)


def linear_probe(model: Any, train: Dataset, test: Dataset) -> Metric:
    """The probe of 100 labels, in percent, mean over draws of the labels; beside raw pixels."""
    found, pixels = (100 * probe(one, train, test, LABELS, DRAWS) for one in (model, None))
    mean, error = mean_and_error(found)
    return Metric("linear probe", mean, "%", error, {"raw pixels": float(pixels.mean())}, False)


class Classifier(nn.Module):
    """A model's features with a linear layer on top: images (N, C, H, W) uint8 -> logits (N, classes).

    The model is copied, and what it computed with in evaluation is what is trained.
    """

    def __init__(self, model: Any, classes: int, *, rng: np.random.Generator) -> None:
        self.model = copy.deepcopy(model)
        for module in self.model.modules():
            if isinstance(module, Averaged):
                module.settle()
        width = features(self.model, np.zeros((1, *model.image_shape), np.uint8)).shape[1]
        self.head = nn.Linear(width, classes, rng=rng)

    def forward(self, images: np.ndarray) -> Tensor:
        return self.head(self.model.features(self.model.network_input(images)))


def fit(net: nn.Module, data: Dataset, rng: np.random.Generator, steps: int) -> None:
    """Train a classifier of images with Adam, 32 at a time; it is left in evaluation mode."""
    optimizer, batches = optim.Adam(net.parameters(), lr=LR), Minibatches(data, BATCH, rng)
    net.train()
    for images, labels in itertools.islice(itertools.chain.from_iterable(itertools.repeat(batches)), steps):
        optimizer.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        optimizer.step()
    net.eval()


def accuracy(net: nn.Module, data: Dataset) -> float:
    """The share of images whose likeliest class is their label."""
    return float((in_batches(net, data.images, ROWS).argmax(axis=1) == data.labels).mean())


def fine_tuned(model: Any, train: Dataset, test: Dataset, labels: int, seed: int) -> float:
    """The share of test images that a model, all of it trained further with few labels, tells rightly."""
    rng = np.random.default_rng(seed)
    net = Classifier(model, len(class_names(train)), rng=rng)
    fit(net, few(train, labels, seed), rng, STEPS)
    return accuracy(net, test)
