"""What a run's features are worth: classes told by few labels, beside raw pixels and beside the untrained model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tinygen.console import Bar, progress
from tinygen.data import in_memory
from tinygen.models import probing
from tinygen.models.model import HasFeatures
from tinygen.training.loop import build
from tinygen.training.run import Run


def probe(run: Run, labels: int, seeds: range) -> None:
    """Print how many test images a linear probe and fine-tuning tell rightly, over draws of the labels.

    The probe stands beside those of an untrained model and of raw pixels, fine-tuning beside training from scratch.

    Raises ValueError for a model without features, data without labels, and more labels than there are.
    """
    config, model, _ = run.load()
    if not isinstance(model, HasFeatures):
        raise ValueError(f"{config.model} has no features to probe")
    sets = config.sets()
    train, test = in_memory(sets[0]), sets[2]
    few = probing.few(train, labels, seeds[0])
    config.weights = None

    def untrained(seed: int) -> HasFeatures:
        return build(config, few, np.random.default_rng(seed), run.device).eval()  # type: ignore[return-value]

    def linear(one: HasFeatures | None, draws: range) -> Iterator[float]:
        yield from probing.probe(one, train, test, labels, draws)  # its features are computed once for all draws

    def tuned(one: HasFeatures, seed: int) -> float:
        return probing.fine_tuned(one, train, test, labels, seed)

    rates: dict[str, Iterator[float]] = {
        "linear probe": linear(model, seeds),
        "  of the untrained model": (r for seed in seeds for r in linear(untrained(seed), range(seed, seed + 1))),
        "  of raw pixels": linear(None, seeds),
        "fine-tuned": (tuned(model, seed) for seed in seeds),
        "  from scratch": (tuned(untrained(seed), seed) for seed in seeds),
    }
    run.say(f"{config.model}: test images of {test.name} told rightly by {len(few)} labels, mean and deviation of "
            f"{len(seeds)} seeds; gain: of the trained model, seed by seed, and its standard error")  # fmt: skip
    found, done = dict[str, np.ndarray](), 0
    with Bar():
        for name, rate in rates.items():
            values = []
            for _ in seeds:
                progress(done / len(rates) / len(seeds), name.strip())
                values.append(100 * next(rate))
                done += 1
            found[name] = np.array(values)
            best = found["linear probe" if done <= 3 * len(seeds) else "fine-tuned"]
            run.say(f"{name:<26}{_spread(found[name])} %{_gain(best - found[name])}")


def _spread(values: np.ndarray) -> str:
    deviation = f" +- {values.std(ddof=1):.2f}" if len(values) > 1 else ""
    return f"{values.mean():.2f}{deviation}"


def _gain(gains: np.ndarray) -> str:
    if not gains.any():
        return ""
    error = f" +- {gains.std(ddof=1) / np.sqrt(len(gains)):.2f}" if len(gains) > 1 else ""
    return f", gain {gains.mean():+.2f}{error}"
