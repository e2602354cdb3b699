"""Lower halves of test images, as several runs tell them from the upper ones: side by side (lecture slide 8).

There are two kinds of answers: the mean of all halves that may follow, which is blurred and has the least squared error
that there is; or one of those halves, drawn. Where the draws are of the very distribution of the data, one of them has
twice that error, and the mean of S of them 1 + 1/S times.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinygen.console import Bar, progress, say
from tinygen.data import tasks
from tinygen.metrics.metric import ImageGrid, mean_and_error
from tinygen.metrics.quality import sharpness
from tinygen.models.model import Completes, Translates
from tinygen.models.selfsupervised.family import HALVES, guesses, squared_errors
from tinygen.report.images import save_plot
from tinygen.training.run import Run, names
from tinygen.training.sets import shared

COLUMNS, SHOWN = 8, 2  # test images in the picture, and draws of each
HEAD = ("", "squared error", "sharpness", "error of the mean", "its sharpness", "CPU ms each")


class Halves(NamedTuple):
    """What a run made of test images: (draws, N, C, H, W); one draw, if it always makes the same."""

    name: str
    made: np.ndarray
    ms: float = 0.0  # of CPU time, an image

    def cells(self, images: np.ndarray, levels: int) -> list[str]:
        """A line of the table, `HEAD`."""
        draws, mean = [squared_errors(one, images, levels) for one in self.made], self.made.mean(axis=0)
        cells = [self.name, _spread(np.mean(draws, axis=0)), _sharpness(self.made[0], images)]
        of_mean = [_spread(squared_errors(mean, images, levels)), _sharpness(mean, images)]
        return [*cells, *(of_mean if len(draws) > 1 else ("", "")), f"{self.ms:.3g}" if self.ms else ""]

    def rows(self) -> dict[str, np.ndarray]:
        """The first images, by the names of the picture's rows."""
        if len(self.made) == 1:
            return {self.name: self.made[0, :COLUMNS]}
        drawn = {f"{self.name}, {i + 1}": one[:COLUMNS] for i, one in enumerate(self.made[:SHOWN])}
        return {**drawn, f"{self.name}, mean": np.round(self.made[:, :COLUMNS].mean(axis=0)).astype(np.uint8)}


def complete(runs: Sequence[Run], n: int, draws: int, seed: int, out: Path) -> None:
    """Draw a picture of the first test images' lower halves as each run tells them, and print how far off they are.

    Args:
        n: of how many test images errors are measured. draws: of each, by models that draw; the seeds count from seed.

    Raises ValueError for a model that can't tell lower halves, and for runs of different data.
    """
    if out.is_dir() or not out.parent.is_dir():  # drawing can take long: say so now
        raise ValueError(f"--out {out}: must be a file in a folder that exists")
    loaded = [run.load()[:2] for run in runs]
    for config, model in loaded:
        if not (isinstance(model, Completes) or _translates(model)):
            raise ValueError(f"{config.model} can't tell lower halves from upper ones: it has no complete(), and its "
                             "task isn't half")  # fmt: skip
    train, test = shared([config for config, _ in loaded])
    images, labels, levels = test.images[:n], None if test.labels is None else test.labels[:n], test.levels
    say(f"{test.name}: lower halves of {len(images):,} test images; squared errors times 1,000, where 0 .. 1 are all "
        f"levels, and their standard errors; mean: of {draws} draws; real halves' sharpness is 1\n")  # fmt: skip
    _line(HEAD)
    _line(["---" for _ in HEAD])
    rows = {"test image": images[:COLUMNS], "known half": tasks.half(images[:COLUMNS], None, levels, _rng(seed))[0]}
    for name, guess in guesses(train, images).items():
        _line(Halves(name, guess[None]).cells(images, levels))
    for name, (_, model) in zip(names(runs), loaded, strict=True):
        with Bar():
            made, ms = _told(model, images, labels, range(seed, seed + draws), name)
        halves = Halves(f"{name}, told classes" if model.condition else name, made, ms)
        _line(halves.cells(images, levels))
        rows |= halves.rows()
    grid = ImageGrid(np.concatenate([*rows.values()]), min(COLUMNS, len(images)), HALVES, None, [*rows])
    save_plot(out, grid, levels)
    say(f"\n{HALVES}: {out}")


def _told(
    model: Any, images: np.ndarray, labels: np.ndarray | None, seeds: range, name: str
) -> tuple[np.ndarray, float]:
    """What a model makes of images with each seed, (seeds, N, C, H, W), and the milliseconds of CPU time of one."""
    made, start = list[np.ndarray](), time.process_time()
    for seed in seeds:
        progress(len(made) / len(seeds), name)
        made.append(_fill(model, images, labels, _rng(seed)))
        if len(made) == 2 and (made[0] == made[1]).all():  # it draws nothing
            break
    ms = 1000 * (time.process_time() - start) / len(made) / len(images)
    return np.stack(made[:1] if (made[0] == made[-1]).all() else made), ms


def _fill(model: Any, images: np.ndarray, labels: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """Images (N, C, H, W) with their lower halves as a model tells them from the upper ones."""
    told = model.condition.used(labels)
    if isinstance(model, Completes):
        return model.complete(images, images.shape[2] // 2, rng, labels=told)
    known, _ = tasks.half(images, None, model.levels, rng)
    return np.where(tasks.hole(*images.shape[2:]), model.translate(known, rng), images)


def _translates(model: Any) -> bool:
    return isinstance(model, Translates) and getattr(model, "task", "") == "half"


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _spread(values: np.ndarray) -> str:
    mean, error = mean_and_error(values)
    return f"{mean:.1f} +- {error:.1f}"


def _sharpness(made: np.ndarray, images: np.ndarray) -> str:
    half = images.shape[2] // 2
    if min(images.shape[2] - half, images.shape[3]) < 3:  # no pixel has all its neighbors
        return ""
    return f"{sharpness(made[:, :, half:]) / max(sharpness(images[:, :, half:]), 1e-12):.2f}"


def _line(cells: Sequence[str]) -> None:
    say(f"| {' | '.join(cells)} |")
