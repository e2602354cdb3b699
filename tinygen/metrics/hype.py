"""What people's judgments of images say: how often they err, how long they must look, and how sure that is.

Source: Zhou et al., HYPE: A Benchmark for Human eYe Perceptual Evaluation of Generative Models (2019), section 2;
lecture slide 138.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

DRAWS, TAILS = 10_000, (2.5, 97.5)  # of the bootstrap, as in the paper's section 3; percentiles of an interval
RANGE = 100.0, 1000.0  # ms, of exposures (section 2.1)


class Estimate(NamedTuple):
    """A number with its 95 % interval: `errors: 34.2 % (30.1 to 38.4)`."""

    name: str
    value: float
    low: float
    high: float
    unit: str

    def __str__(self) -> str:
        return f"{self.name}: {self.value:.1f} {self.unit} (95 % interval {self.low:.1f} to {self.high:.1f})"


def error_rates(wrong: np.ndarray, real: np.ndarray, rng: np.random.Generator) -> list[Estimate]:
    """HYPE-infinity: the share of wrong answers in percent, over all images, generated ones and real ones.

    At 50 % generated images can't be told from real ones; above it, they are taken for real more often than real ones.

    Args:
        wrong: (evaluators, images) bool, whether the answer was wrong.
        real: (images,) bool, whether an image is real.

    Raises ValueError unless there is at least one evaluator, and one image of each kind.
    """
    wrong, real = np.asarray(wrong, np.float64), np.asarray(real, bool)
    if wrong.ndim != 2 or not len(wrong) or wrong.shape[1:] != real.shape or real.all() or not real.any():
        raise ValueError(
            f"wrong must be (evaluators, images) and real (images,) with images of both kinds, got {wrong.shape} "
            f"and {real.sum()} real of {real.size}"
        )
    kinds = {
        "errors": [wrong[:, real], wrong[:, ~real]],
        "generated taken for real": [wrong[:, ~real]],
        "real taken for generated": [wrong[:, real]],
    }
    found = []
    for name, parts in kinds.items():
        value, low, high = crossed_bootstrap(parts, rng)
        found.append(Estimate(name, 100 * value, 100 * max(low, 0.0), 100 * min(high, 1.0), "%"))
    return found


def crossed_bootstrap(parts: Sequence[np.ndarray], rng: np.random.Generator) -> tuple[float, float, float]:
    """The mean over all columns, and its 95 % interval, which reaches to other evaluators and to other images.

    Evaluators (rows) and images (columns, within each part) are both drawn with replacement, independently of each
    other: the pigeonhole bootstrap of Owen (2007). As it counts the noise of a single answer three times, its draws are
    pulled to their mean until their variance is the one that analysis of variance finds.

    Args:
        parts: (evaluators, images of one kind) each, in the same order of evaluators.
    """
    rows, columns = len(parts[0]), sum(part.shape[1] for part in parts)
    drawn_rows = rng.multinomial(rows, np.full(rows, 1 / rows), DRAWS) / rows
    draws = np.zeros(DRAWS)
    for part in parts:
        n = part.shape[1]
        drawn_columns = rng.multinomial(n, np.full(n, 1 / n), DRAWS) / n
        draws += n / columns * ((drawn_rows @ part) * drawn_columns).sum(axis=1)
    value = sum(float(part.sum()) for part in parts) / rows / columns
    spread = float(draws.var())
    variance, freedom = crossed_variance(parts)
    pull = student(freedom) * math.sqrt(variance / spread) if spread > 0 else 0.0
    low, high = np.percentile(value + (draws - value) * pull, TAILS)
    return value, float(low), float(high)


def student(freedom: float) -> float:
    """How much wider a 95 % interval is if its variance is estimated with so many degrees of freedom: t over normal.

    The expansion of Cornish & Fisher, right to 2 % from 4 degrees on.
    """
    z = 1.959964
    return 1 + (z**2 + 1) / (4 * freedom) + (5 * z**4 + 16 * z**2 + 3) / (96 * freedom**2)


def crossed_variance(parts: Sequence[np.ndarray]) -> tuple[float, float]:
    """The variance of the mean over all columns, if rows and columns are both random, without bias; and its freedom.

    Rows' means and columns' means vary by the noise of single answers, too, which so is counted twice, and is taken off
    once. Of one row alone only its columns are random. The degrees of freedom are those of the rows, which are few, and
    more the less of the variance comes from them (Satterthwaite 1946).
    """
    rows, columns = len(parts[0]), sum(part.shape[1] for part in parts)
    by_row, by_column, noise = np.zeros(rows), 0.0, 0.0
    for part in parts:
        n = part.shape[1]
        weight = n / columns
        row, column = part.mean(axis=1), part.mean(axis=0)
        by_row += weight * row
        rest = part - row[:, None] - column + part.mean()
        by_column += weight**2 * float(((column - column.mean()) ** 2).sum()) / max(1, n - 1) / n
        noise += weight**2 * float((rest**2).sum()) / max(1, (rows - 1) * (n - 1)) / rows / n
    if rows == 1:
        return by_column, math.inf
    of_rows = float(by_row.var(ddof=1)) / rows
    variance = max(of_rows + by_column - noise, noise)
    return variance, (rows - 1) * (variance / of_rows) ** 2 if of_rows else math.inf


def exposure(shown: np.ndarray) -> float:
    """HYPE-time of an evaluator: the exposure in ms around which the staircase came to rest.

    The staircase takes 10 ms off after a right answer and adds 30 after a wrong one, so that it rests where three
    of four answers are right (Kaernbach 1991: weighted up-down). What is taken is the mean of its second half.

    Args:
        shown: (images,), for how long each image was shown, in the order in which they were.
    """
    return float(np.mean(shown[len(shown) // 2 :]))


def exposures(shown: Sequence[np.ndarray], rng: np.random.Generator) -> Estimate:
    """HYPE-time: the mean of the evaluators' `exposure`, its interval by drawing evaluators with replacement.

    One evaluator says nothing of others: the interval is then all that the page can show, as it is at most.
    """
    each = np.array([[exposure(one)] for one in shown])
    value, low, high = crossed_bootstrap([each], rng) if len(each) > 1 else (float(each[0, 0]), *RANGE)
    return Estimate("exposure at 75 % right answers", value, max(low, RANGE[0]), min(high, RANGE[1]), "ms")
