"""Members of all families beside each other, after equal CPU time on one data set: `tinygen compare-families`.

Each is trained as `tinygen train` builds it, by one thread, for so many minutes of its own CPU time: so it matters
little what else the machine does. It has a process of its own, whose memory is its own, and leaves a run folder,
OUT/MODEL-SEED; what is there is taken up. What is measured stands in the run's results.json, as metrics; the page of
them all is `tinygen.report.families`.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinygen import kernels
from tinygen.console import Bar, say
from tinygen.data import Dataset, held_out, in_memory, subset
from tinygen.metrics.metric import ImageGrid, Metric
from tinygen.metrics.quality import quality, sharpness
from tinygen.models import probing
from tinygen.models.model import HasFeatures, Samples, Translates
from tinygen.models.registry import model_class
from tinygen.models.vae.base import LatentVariableModel
from tinygen.report import families
from tinygen.report.claims import Member
from tinygen.report.images import save_plot
from tinygen.training.callbacks import Checkpoints, MetricsFile
from tinygen.training.commands import picture
from tinygen.training.config import Config, Sets
from tinygen.training.interrupt import interruptions
from tinygen.training.loop import build, fit
from tinygen.training.progress import Progress
from tinygen.training.run import Run
from tinygen.training.sets import check_labels
from tinygen.training.trainer import Trainer

MEMBERS = ("pixelcnn", "vae", "glow", "rbm", "diffusion", "flow-matching", "dcgan")  # of each family one, or two
SHOWN, ALONE = 64, 3  # samples in a picture; how often one is drawn alone
STOPPED = 130  # exit code of a process that was told to stop, and saved its work


def compare_families(asked: Sequence[Config], samples: int, out: Path) -> Path:
    """Train and measure what hasn't been yet, one after the other, and write the page after each.

    asked: models with their seeds; of those that no images can be drawn from, only the features are measured. samples:
    how many are drawn of each of the others, at most as many as test images. Gives the page.

    Raises ValueError for a model that has neither, and for a folder that holds other settings' runs.
    """
    runs = [Run(out / f"{config.model}-{config.seed}") for config in asked]
    for config, run in zip(asked, runs, strict=True):
        if not issubclass(model_class(config.model), (Samples, HasFeatures)):
            raise ValueError(f"{config.model} cannot be sampled from and has no features: there is nothing to compare")
        if (run.folder / "config.toml").exists() and (before := Config.read(run.folder / "config.toml")) != config:
            raise ValueError(f"{run.folder} is of other settings ({_difference(before, config)}): name another --out")
    samples = min(samples, len(asked[0].datasets()[1]))  # what is wrong with the data is said before anything else
    out.mkdir(parents=True, exist_ok=True)
    for config, run in zip(asked, runs, strict=True):
        if run.read_results().get("samples") != samples:
            _apart(config, run, samples)
        families.write(out / families.PAGE, _read(asked, runs))
    return out / families.PAGE


def _difference(before: Config, now: Config) -> str:
    differs = [name for name, value in vars(now).items() if getattr(before, name) != value]
    return ", ".join(f"{name} {getattr(before, name)}, not {getattr(now, name)}" for name in differs)


def _read(asked: Sequence[Config], runs: Sequence[Run]) -> list[Member]:
    """What is known of each run so far."""
    return [Member(config.model, config.seed, run.folder, run.read_results())
            for config, run in zip(asked, runs, strict=True)]  # fmt: skip


# ----------------------------------------------------------------------------------------------- a process for a member


def _apart(config: Config, run: Run, samples: int) -> None:
    """Train and measure a member in a process of its own. What goes wrong there is kept as the run's "failed".

    Raises KeyboardInterrupt after the process has saved its work, if it or this one was told to stop.
    """
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # NumPy's own threads, read when it is imported
    process = multiprocessing.get_context("spawn").Process(target=_member, args=(config, run.folder, samples))
    with interruptions() as came:
        process.start()
        while process.is_alive():
            process.join(0.1)
            if came:
                process.terminate()
                process.join()
    if came or process.exitcode == STOPPED:
        raise KeyboardInterrupt("what was trained is saved; the same command goes on")
    if process.exitcode and process.exitcode < 0:
        failed = f"the process was ended by signal {-process.exitcode}, as a system does that is out of memory"
        run.write_results(run.read_results() | {"failed": failed})
        say(f"{run.folder.name}: {failed}", sys.stderr)


def _member(config: Config, folder: Path, samples: int) -> None:
    """In a process of its own: train and measure."""
    os.setpgrp()  # a terminal's Ctrl-C is for the process that waits, which says so here
    kernels.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(folder)
    try:
        with run.held():
            if not train_and_measure(config, run, samples):
                sys.exit(STOPPED)
    except (ValueError, ArithmeticError, MemoryError, OSError) as e:
        failed = f"{type(e).__name__}: {e}"
        run.write_results(run.read_results() | {"failed": failed})
        say(f"{folder.name}: {failed}", sys.stderr)
        sys.exit(1)


def train_and_measure(config: Config, run: Run, samples: int) -> bool:
    """Train, or go on where it was stopped, then measure: whether it wasn't told to stop.

    The run's results: the metrics; "samples": of how many; what the model says of p(x), "evidence".
    """
    sets, rng = _sets(config), np.random.default_rng(config.seed)
    if run.checkpoint.exists():
        _, model, state = run.load(run.checkpoint)
        trainer = Trainer(config, model, sets[0], rng, sets[1])
        trainer.restore(run, state)
    else:
        model = build(config, sets[0], rng)
        check_labels(model, sets)
        trainer = Trainer(config, model, sets[0], rng, sets[1])
        run.begin(config)
    metrics = MetricsFile(run, False)
    progress = Progress(trainer, lambda parts: f"{run.folder.name}  {model.family.progress(model, parts)}")
    if not fit(trainer, [metrics, _Saved(trainer, run, metrics), progress], time.process_time):
        return False
    before = run.read_results()
    known = {
        "step": trainer.step, "images": trainer.images, "seconds": round(trainer.seconds, 3),
        "parameters": sum(p.numel() for p in model.parameters()), "memory": max(_peak(), before.get("memory", 0.0)),
        "messages": _messages(trainer, progress.parts) or before.get("messages", []), "evidence": model.evidence,
    }  # fmt: skip
    run.write_results(known)  # now, for measuring may be stopped
    with Bar():
        found = measured(model, trainer.dataset, sets[2], samples, config.seed)
    found.append(Metric("a training image", 1000 * trainer.seconds / trainer.images, "ms", lower_is_better=True))
    found.append(Metric("memory", known["memory"], "MiB", lower_is_better=True))
    if (shown := _shown(model, sets[2], config.seed)) is not None:
        save_plot(run.samples, shown, model.levels)
    run.write_results(known | {"samples": samples, "metrics": [metric.json() for metric in found]})
    return True


def _peak() -> float:
    """The most memory that this process had, in MiB; getrusage's is at least what the process had that started it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _sets(config: Config) -> Sets:
    """All training images are trained on, whatever the family: so all FD* are of the same features."""
    train, test = config.datasets()
    return train, None, in_memory(test)


class _Saved(Checkpoints):
    """Checkpoints of which nothing is said: the same command goes on, not `tinygen train --resume`."""

    def __enter__(self) -> Any:
        self.save()
        return self


def _messages(trainer: Trainer, parts: dict[str, float]) -> list[dict[str, Any]]:
    """What is wrong with the training, by its last numbers."""
    found = trainer.model.family.diagnostics(trainer.model, parts) if parts else []
    return [{"step": trainer.step, "text": text} for text in found]


# ------------------------------------------------------------------------------------------------------------- measured


def measured(model: Any, train: Dataset, test: Dataset, samples: int, seed: int) -> list[Metric]:
    """The likelihood, if it has one; the quality of so many samples, and the CPU time that one takes; the features.

    What a model doesn't give, isn't there.
    """
    rng = np.random.default_rng(seed)
    likelihood = model.family.likelihood(model, train, test, rng)
    drawn = _sampled(model, train, test, samples, rng) if isinstance(model, Samples) else []
    return [*([] if likelihood is None else [likelihood]), *drawn, *_probed(model, train, test)]


def _sampled(model: Any, train: Dataset, test: Dataset, samples: int, rng: np.random.Generator) -> list[Metric]:
    """How good so many samples are, and the CPU time that one takes.

    They are held against as many test images, drawn in proportion to the classes; so are real images and the linear
    model, since FD* falls with the number of images.

    Of a VAE the means of p(x | z) are drawn, as people show them: what p(x | z) adds is noise of each pixel alone.
    """
    alone = []
    for _ in range(1 + ALONE):
        start = time.process_time()
        _drawn(model, 1, rng)
        alone.append(time.process_time() - start)
    start = time.process_time()
    images = _drawn(model, samples, rng)
    spent = time.process_time() - start
    some = subset(test, held_out(samples, len(test), test.labels)) if samples < len(test) else test
    return [
        *quality(images, train, some),
        Metric("sharpness", sharpness(images) / sharpness(test.images), "of real images'", lower_is_better=None),
        Metric("a sample", 1000 * spent / samples, "ms", lower_is_better=True),
        Metric("a sample, drawn alone", 1000 * min(alone[1:]), "ms", lower_is_better=True),
    ]


def _probed(model: Any, train: Dataset, test: Dataset) -> list[Metric]:
    """Of a model with features: how many test images these tell by few labels, mean over draws of the labels."""
    if not isinstance(model, HasFeatures):
        return []
    if train.labels is None or len(train) < probing.LABELS or len(np.unique(train.labels)) > probing.LABELS:
        return []
    return [probing.linear_probe(model, train, test)]


def _shown(model: Any, test: Dataset, seed: int) -> ImageGrid | None:
    """Samples; of a model from images to images, what it makes of test images; of one of features alone, nothing."""
    if isinstance(model, Samples):
        return ImageGrid(_drawn(model, SHOWN, np.random.default_rng(seed)))
    return picture(model, lambda: test, SHOWN, seed) if isinstance(model, Translates) else None


def _drawn(model: Any, n: int, rng: np.random.Generator) -> np.ndarray:
    images: np.ndarray = model.sample(n, rng, 0.0 if isinstance(model, LatentVariableModel) else 1.0)
    return images
