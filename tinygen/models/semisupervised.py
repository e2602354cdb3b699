"""Semi-supervised learning: many images, few labels. What its models share, in whichever family they are.

They are told the labels of a few training images, always the same ones, in proportion to the classes. Of all others
they see the images alone.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from tinygen import Tensor, nn, parallel
from tinygen.data import Dataset
from tinygen.metrics.metric import Metric
from tinygen.models import probing
from tinygen.models.family import Batch
from tinygen.models.model import Step
from tinygen.models.networks.encoders import in_batches

SEED = 0  # of the draw of the labels that are told, whatever the seed of a training
BATCH = 32  # labeled images a step


@functools.lru_cache(maxsize=4)  # a Dataset never changes, and is known by its identity
def labeled(train: Dataset, labels: int, seed: int = SEED) -> Dataset:
    """The images whose labels are told. Raises ValueError where there are none, or not so many."""
    return probing.few(train, labels, seed)


def told(step: Step, labels: int, seed: int = SEED) -> Batch:
    """A step's labeled images, drawn from those whose labels are told."""
    few = labeled(step.dataset, labels, seed)
    index = parallel.whole(step.rng).integers(0, len(few), BATCH)
    return Batch(few.images[index], np.asarray(few.labels)[index])


class Supervised(nn.Module):
    """A network that is given the labels alone: images (N, C, H, W) uint8 -> logits (N, classes).

    Args:
        model: whose images these are.
        net: from scaled images to (N, classes, ...).
    """

    def __init__(self, model: Any, net: nn.Module) -> None:
        self.scale, self.net = model.scale, net

    def forward(self, images: np.ndarray) -> Tensor:
        out = self.net(self.scale(images))
        return out.reshape(len(images), -1)


def accuracy(model: Any, train: Dataset, test: Dataset, seed: int = 0) -> Metric:
    """How many test images are told rightly, in percent; beside the same network, trained on the same labels alone.

    model: with `logits` of images, (N, classes), and `classifier(rng)`, its network anew.
    """
    rng = np.random.default_rng(seed)
    alone = Supervised(model, model.classifier(rng))
    probing.fit(alone, labeled(train, model.labels, model.draw_of_labels), rng, probing.STEPS)
    known = {"labels alone": 100 * probing.accuracy(alone, test)}
    right = in_batches(model.logits, test.images, probing.ROWS).argmax(axis=1) == test.labels
    return Metric(f"classes told, of {model.labels} labels", 100 * float(right.mean()), "%", None, known, False)
