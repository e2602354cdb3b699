"""What features are worth: classes told by few labels, of a run or of several beside each other, by the same labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from tinygen.console import Bar, progress, say
from tinygen.data import Dataset
from tinygen.models import probing
from tinygen.models.model import HasFeatures
from tinygen.training.loop import build
from tinygen.training.run import Run, names
from tinygen.training.sets import shared

LINEAR = ("linear probe", "with its first weights", "gain", "gain over pixels")
TUNED = ("fine-tuned", "from its first weights", "gain")


class Labels(NamedTuple):
    """So many labels of a training set, drawn anew for each seed; test images are told by them."""

    train: Dataset
    test: Dataset
    number: int
    seeds: range

    def linear(self, model: Any) -> np.ndarray:
        """Percent told rightly by softmax regression on features, (seeds,). model: as for `probing.features`."""
        return 100 * probing.probe(model, self.train, self.test, self.number, self.seeds)

    def tuned(self, model: Any) -> Iterator[float]:
        """Percent told rightly by a model of which all is trained, for each seed."""
        for seed in self.seeds:
            yield 100 * probing.fine_tuned(model, self.train, self.test, self.number, seed)


def probe(runs: Sequence[Run], labels: int, seeds: range, tune: bool = True) -> None:
    """Print how many test images a linear probe and fine-tuning tell rightly, over draws of the labels: a table.

    A line for raw pixels, and one for each run: the probe, then fine-tuning, each beside the same from the weights that
    the run began with. The labeled images are drawn from all training images, so that the draws are the same for all
    models, also for those that hold images out.

    Args:
        labels: how many. seeds: of their draws, and of fine-tuning. tune: fine-tuning, too, which takes most of the
            time.

    Raises ValueError for a model without features, data without labels, more labels than there are, and for runs of
    different data.
    """
    loaded = [run.load()[:2] for run in runs]
    for config, model in loaded:
        if not isinstance(model, HasFeatures):
            raise ValueError(f"{config.model} has no features to probe")
    told = Labels(*shared([config for config, _ in loaded]), labels, seeds)
    probing.few(told.train, labels, seeds[0])  # what is wrong with them is said before anything else
    say(f"{told.test.name}: percent of {len(told.test):,} test images told rightly by {labels} labels, mean and "
        f"deviation of {len(seeds)} draws; gain: draw by draw, with its standard error\n")  # fmt: skip
    columns = LINEAR + TUNED * tune
    say(_row("", columns))
    say(_row("---", ["---" for _ in columns]))
    pixels = told.linear(None)
    say(_row("raw pixels", [_spread(pixels), *("" for _ in columns[1:])]))
    for run, name, (config, model) in zip(runs, names(runs), loaded, strict=True):
        first = build(replace(config, weights=None), told.train, np.random.default_rng(config.seed), run.device).eval()
        with Bar():
            cells = [*_linear(told, model, first, pixels, name), *(_tuned(told, model, first, name) if tune else ())]
        say(_row(f"{name}, told classes" if model.told_classes else name, cells))


def _linear(told: Labels, model: Any, first: Any, pixels: np.ndarray, name: str) -> Iterator[str]:
    progress(0.0, f"{name}, linear probe")
    rates = told.linear(model)
    progress(0.5, f"{name}, linear probe")
    others = told.linear(first)
    yield from (_spread(rates), _spread(others), _gain(rates - others), _gain(rates - pixels))


def _tuned(told: Labels, model: Any, first: Any, name: str) -> Iterator[str]:
    found = list[tuple[float, float]]()
    for pair in zip(told.tuned(model), told.tuned(first), strict=True):
        found.append(pair)
        progress(len(found) / len(told.seeds), f"{name}, fine-tuning")
    rates, others = np.array(found).T
    yield from (_spread(rates), _spread(others), _gain(rates - others))


def _row(name: str, cells: Sequence[str]) -> str:
    return f"| {' | '.join((name, *cells))} |"


def _spread(values: np.ndarray) -> str:
    deviation = f" +- {values.std(ddof=1):.1f}" if len(values) > 1 else ""
    return f"{values.mean():.1f}{deviation}"


def _gain(gains: np.ndarray) -> str:
    error = f" +- {gains.std(ddof=1) / np.sqrt(len(gains)):.1f}" if len(gains) > 1 else ""
    return f"{gains.mean():+.1f}{error}"
