"""People as judges of a run's samples: the page that asks them, and the score of what they answered (HYPE)."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from tinygen.console import Bar
from tinygen.metrics.hype import error_rates, exposures
from tinygen.models.model import Samples
from tinygen.report import hype
from tinygen.report.hype import Key, Sitting
from tinygen.training.run import Run

IMAGES = {False: 100, True: 150}  # without a time limit and with one (Zhou et al. 2019, sections 2.1 and 2.2)


def write(run: Run, n: int | None, seed: int, timed: bool, out: Path | None) -> None:
    """Write the page, of as many test images as samples, and keep its key in the run's folder.

    Raises ValueError if n is odd, or the test set has fewer than n / 2 images, or the model can't be sampled from.
    """
    config, model, _ = run.load()
    if not issubclass(type(model), Samples):
        raise ValueError(f"{config.model} cannot be sampled from, so there is nothing to judge")
    test, half = config.sets()[2], (n or IMAGES[timed]) // 2
    if n and n % 2:
        raise ValueError(f"-n must be even, for half of the images are real, got {n}")
    if half > len(test):
        raise ValueError(f"-n {2 * half}: half of them are real, but the test set has only {len(test)} images")
    rng = np.random.default_rng(seed)
    real = test.images[rng.permutation(len(test))[:half]]
    with Bar():
        generated = model.sample(half, rng)
    path = out or run.folder / f"hype-{seed}{'-timed' if timed else ''}.html"
    key = hype.write_key(run.folder, written := hype.write(path, real, generated, model.levels, test.name, timed))
    run.say(f"{2 * half} images to be judged: {path} (its key, which isn't for those who judge: {key})")
    run.say(f"page {written.page}; once people have saved their answers: tinygen hype {run.quoted} --score FILE ...")


def score(run: Run, files: list[Path], seed: int) -> None:
    """Print what the answers in files say, a page at a time.

    Raises ValueError for answers that aren't whole, or are to another run's page.
    """
    pages: dict[str, list[Sitting]] = defaultdict(list)
    for sitting in hype.read_answers(files):
        pages[sitting.page].append(sitting)
    for page, sittings in pages.items():
        key = hype.read_key(run.folder, page)
        wrong = np.array([_wrong(sitting, key) for sitting in sittings])
        n, rng = len(sittings), np.random.default_rng(seed)
        alone = "; of one evaluator, the interval reaches to other images alone" if n == 1 else ""
        kind = "with a time limit" if key.timed else "without a time limit"
        run.say(f"page {page}, {kind}: {n} evaluator{'s' * (n > 1)}, {len(key.real)} images{alone}")
        if key.timed:
            run.say(f"  {exposures([sitting.shown for sitting in sittings], rng)}")
        for estimate in error_rates(wrong, key.real, rng):
            run.say(f"  {estimate}")


def _wrong(sitting: Sitting, key: Key) -> np.ndarray:
    """(images,) bool, in the page's order: whether the answer was wrong."""
    n = len(key.real)
    if sorted(sitting.images.tolist()) != list(range(n)) or (key.timed and len(sitting.shown) != n):
        raise ValueError(
            f"sitting {sitting.name} must have one answer to each of {n} images, got {len(sitting.images)}"
        )
    wrong = np.empty(n, bool)
    wrong[sitting.images] = sitting.said_real != key.real[sitting.images]
    return wrong
