"""The data sets of a run: whether they fit the model, and what is said of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinygen.data import Dataset, MappedImages, in_memory
from tinygen.models.model import Model
from tinygen.training.config import Config, Sets

NAMED = 16  # classes that are named


def check_labels(model: Model, sets: Sets) -> None:
    """ValueError, which names the set, unless all labels are classes of a model that is told the class."""
    train, held, test = sets
    for name, data in {"training": train, "validation": held, "test": test}.items():
        condition = model.condition.of_data
        if data is None or not condition:
            continue
        kind, flag = type(model).__name__, "--classes" if condition is model.condition else "--nouns"
        if data.labels is None:
            raise ValueError(f"the {name} set of {data.name} has no labels, which {kind} of {condition.classes} "
                             f"classes has to be told: leave {flag} out, or add them")  # fmt: skip
        try:
            condition.check(data.labels, len(data), kind)
        except ValueError as e:
            most = max(int(d.labels.max()) for d in sets if d is not None and d.labels is not None)
            advice = f": write --classes {most + 1}" if condition is model.condition else ""
            raise ValueError(f"the {name} set of {data.name}: {e}{advice}") from e


def shared(configs: Sequence[Config]) -> tuple[Dataset, Dataset]:
    """All training images, in memory, and the test images of runs that are to be measured by the same ones.

    Raises ValueError for runs of different data.
    """
    found = dict.fromkeys((config.data, config.levels, config.size) for config in configs)
    if len(found) > 1:
        kinds = " and ".join(f"{data}{f' of {levels} levels' if levels else ''}{f', {size}x{size}' if size else ''}"
                             for data, levels, size in found)  # fmt: skip
        raise ValueError(f"runs that are measured together must be of the same data, got {kinds}")
    train, test = configs[0].datasets()
    return in_memory(train), test


def about(model: str, sets: Sets) -> str:
    """A line on what is trained on what: sizes of the sets, and their classes."""
    train, held, test = sets
    size = f"{len(train):,} images {'x'.join(map(str, train.images.shape[1:]))}, {train.levels} levels"
    others = ("" if held is None else f"{len(held):,} to validate, ") + f"{len(test):,} to test"
    return f"{model} on {train.name}: {size} ({others}){_classes(train, test)}"


def _classes(train: Dataset, test: Dataset) -> str:
    """How many classes there are, and which of them are missing in one of the sets."""
    labels = [data.labels for data in (train, test) if data.labels is not None]
    if len(labels) < 2:
        return ""
    found = [set(np.unique(some).tolist()) for some in labels]
    names = dict(enumerate(train.classes))
    parts = []
    for name, missing in (("to train on", found[1] - found[0]), ("to test on", found[0] - found[1])):
        if missing:
            some = ", ".join(names.get(i, str(i)) for i in sorted(missing)[:NAMED])
            parts.append(f"none {name} of {some}{', ...' if len(missing) > NAMED else ''}")
    both = len(found[0] | found[1])
    return f", {both} {'class' if both == 1 else 'classes'}" + (f": {'; '.join(parts)}" if parts else ", all in both")


def notes(train: Dataset) -> str:
    """Lines on what was left out when the data were read, and what is done about their size."""
    mapped = isinstance(train.images, MappedImages)
    part = f"read from the file as needed; trivial models see {len(in_memory(train)):,} of them" if mapped else ""
    return "".join(f"{note}\n" for note in (*train.notes, part) if note)
