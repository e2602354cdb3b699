"""Work on a run that is trained: that of the commands, and of training at its end."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tinygen import parallel
from tinygen.console import Bar, say
from tinygen.data import Dataset, in_memory
from tinygen.learn import drawing as strip
from tinygen.metrics.metric import ImageGrid
from tinygen.models.condition import Text
from tinygen.models.family import Batch, PlotOf
from tinygen.models.model import Causal, HasLogProb, Model, Samples, Translates
from tinygen.models.typicality import typicality
from tinygen.report import compare as comparison
from tinygen.report import page
from tinygen.report.images import save_plot
from tinygen.training import weights
from tinygen.training.run import Run

SAMPLES = 64  # that a run ends with


def finish(run: Run, train: Dataset, test: Dataset) -> None:
    """Measure a run that is trained on the test set, draw samples and all its plots, and write its report.

    Of several ranks the others `assist`.
    """
    config, model, state = run.load()
    if run.best.exists():
        run.say(f"from here on with the weights of step {state['step']:,}, whose validation was best")
    ranks = parallel.current()
    ranks.broadcast(model.state_dict() if ranks.size > 1 else None)
    with parallel.sharing(ranks):
        _measure(run, model, train, test, config.seed)
        if _can_sample(model):  # as `tinygen sample` does
            save_plot(run.samples, picture(model, lambda: test, SAMPLES, config.seed), model.levels)
            run.say(f"samples: {run.samples}")
    with parallel.using(parallel.Alone()):
        for name in plots(model):
            _plot(run, model, name, train, test, config.seed, run.folder / f"{name}.png")
    page.write(run.folder, run.read_results())
    more = f"; more samples: tinygen sample {run.quoted}" if _can_sample(model) else ""
    run.say(f"all of it: {run.report}{more}")


def assist(model: Model, train: Dataset, test: Dataset, seed: int) -> None:
    """Do this rank's share of what the first one measures and draws in `finish`, with the weights that it has."""
    ranks = parallel.current()
    model.load_state_dict(ranks.broadcast(None))
    with parallel.sharing(ranks):
        model.family.metrics(model, train, test, np.random.default_rng(seed))
        if _can_sample(model):
            picture(model, lambda: test, SAMPLES, seed)


def evaluate(run: Run, seed: int) -> None:
    """Print the test metrics beside those of trivial models, and keep them in the run's report."""
    config, model, _ = run.load()
    train, _, test = config.sets()
    binary = ", thresholded: 1 from half the greatest value up" if config.levels == 2 else ""
    run.say(f"{config.model} on {len(test):,} test images of {test.name}, {test.levels} levels{binary}")
    _measure(run, model, in_memory(train), test, seed)
    page.write(run.folder, run.read_results())
    run.say(f"kept in {run.results} and {run.report}")


def _measure(run: Run, model: Model, train: Dataset, test: Dataset, seed: int) -> None:
    with Bar():
        metrics = model.family.metrics(model, train, test, np.random.default_rng(seed))
    for metric in metrics:
        run.say(str(metric))
    if not metrics:
        run.say(f"no test figures: {type(model.family).__name__} doesn't define metrics()")
    run.write_results(run.read_results() | {"metrics": [metric.json() for metric in metrics]})


def samples(model: Any, n: int, seed: int, temperature: float = 1.0, label: int | str | None = None) -> np.ndarray:
    """n images drawn from a model, (n, C, H, W) uint8: what `model.sample` gives for an rng of this seed.

    label: a class, or a caption, which is text.
    """
    labels = None if label is None else _told(model, n, label)
    with Bar():
        return model.sample(n, np.random.default_rng(seed), temperature, labels)


def _told(model: Any, n: int, label: int | str) -> np.ndarray:
    """What a model is told to draw n images of one class, or of one caption."""
    if not isinstance(label, str):
        return np.full(n, label, np.int64)
    if not isinstance(model.condition, Text):
        raise ValueError(f"--caption: {type(model).__name__} reads no captions; textgan does")
    return model.condition.captions.numbers([label]).repeat(n, axis=0)


def picture(
    model: Any, test: Callable[[], Dataset], n: int, seed: int, temperature: float = 1.0, label: int | str | None = None
) -> ImageGrid:
    """n samples as a grid; of a model that translates, n test images (of class `label`) with what it makes of them."""
    caption = label if isinstance(label, str) else "" if label is None else f"Samples of class {label}"
    if isinstance(model, Samples):
        return ImageGrid(samples(model, n, seed, temperature, label), caption=caption)
    if temperature != 1:
        raise ValueError(f"--temperature: {type(model).__name__} translates test images, it has no temperature")
    if isinstance(label, str):
        raise ValueError(f"--caption: {type(model).__name__} translates test images, it reads no captions")
    data, rng = test(), np.random.default_rng(seed)
    images, labels = data.images, data.labels
    among = np.arange(len(images)) if label is None else np.flatnonzero(np.asarray(labels) == label)
    if not len(among):
        raise ValueError(f"--label {label}: {data.name} has no test images of this class")
    chosen = rng.permutation(among)[:n]
    with Bar():
        batch = Batch(images[chosen], None if labels is None else labels[chosen])
        return model.family.snapshot(model, batch, rng)._replace(caption=caption)


def sample(
    run: Run, n: int, seed: int, temperature: float, label: int | str | None, out: Path | None, **drawing: float | None
) -> None:
    """Draw images into a PNG. drawing: settings of `Model.draw_with`; None: as the model was built with."""
    config, model, _ = run.load()
    told = "caption" if isinstance(label, str) else "label"
    differs: dict[str, Any] = {"n": (n, 64), "temperature": (temperature, 1.0), told: (label, None)}
    differs |= {name: (value, None) for name, value in drawing.items()}
    more = "".join(f"-{name}-{_short(value)}" for name, (value, usual) in differs.items() if value != usual)
    path = _writable(out or _named(run, f"samples-{seed}{more}"))
    if not _can_sample(model):
        raise ValueError(f"{config.model} cannot be sampled from{_offers(model)}")
    model.draw_with(**{name: value for name, value in drawing.items() if value is not None})
    grid = picture(model, lambda: config.sets()[2], n, seed, temperature, label)
    save_plot(path, grid, model.levels)
    run.say(f"{n} samples: {path}")


def draw(run: Run, seed: int, temperature: float, label: int | str | None, path: Path, **drawing: float | None) -> None:
    """Draw one image, and write a page on how its values came one after the other."""
    config, model, _ = run.load()
    by_value = isinstance(model, Causal)
    if not by_value:
        raise ValueError(f"--page shows models that draw value by value, such as pixelcnn; got {config.model}")
    model.draw_with(**{name: value for name, value in drawing.items() if value is not None})
    labels = model.condition.in_turn(1) if label is None else _told(model, 1, label)
    with Bar():
        found = strip.drawing(model, np.random.default_rng(seed), temperature, labels)
    strip.write(path, f"How {config.model} draws an image", found)
    run.say(f"{len(found.order)} values of an image, one after the other: {path}")


def _short(value: float | str) -> str:
    """A flag's value as a part of a file's name."""
    return re.sub("[^a-z0-9]+", "-", value.lower())[:60].strip("-") if isinstance(value, str) else f"{value:g}"


def list_plots(run: Run) -> None:
    """Print the names of the model's plots, and what each shows."""
    config, model, _ = run.load()
    if not plots(model):
        raise ValueError(f"{config.model} has no plots: {type(model.family).__name__}.plots is empty")
    run.say(f"{config.model} offers: tinygen plot {run.quoted} NAME, where NAME is")
    for name, draw in plots(model).items():
        run.say(f"  {name:<12} {(inspect.getdoc(draw) or '').splitlines()[0]}")


def plot(run: Run, name: str, seed: int, out: Path | None) -> None:
    """Draw one of the model's plots into a PNG."""
    config, model, _ = run.load()
    if name not in plots(model):
        raise ValueError(f"{config.model} has no {name}{_offers(model)}")
    path = _writable(out or _named(run, f"{name}-{seed}"))
    train, _, test = config.sets()
    _plot(run, model, name, in_memory(train), test, seed, path)
    page.write(run.folder, run.read_results())


def _plot(run: Run, model: Model, name: str, train: Dataset, test: Dataset, seed: int, path: Path) -> None:
    with Bar():
        drawn = plots(model)[name](model, train, test, np.random.default_rng(seed))
    save_plot(path, drawn, model.levels)
    results = run.read_results()
    run.write_results(results | {"captions": results.get("captions", {}) | {path.stem: drawn.caption}})
    run.say(f"{drawn.caption or name}: {path}")


def compare(runs: list[Run], out: Path) -> None:
    """Put runs beside each other on one page."""
    path = _writable(out)
    comparison.write(path, [(run.folder, run.read_results()) for run in runs])
    say(f"{len(runs)} runs: {path}")


def export(run: Run, out: Path | None) -> None:
    """Write the weights alone, for PyTorch."""
    config, model, _ = run.load()
    path = _writable(out or run.folder / "weights.safetensors")
    weights.give(model, path)
    run.say(f"{len(model.state_dict())} tensors: {path}")
    run.say(f"in PyTorch: safetensors.torch.load_file({str(path)!r})")
    run.say(f"to start from them here: tinygen train {config.model} --weights {shlex.quote(str(path))} ...")


def _named(run: Run, stem: str) -> Path:
    """A PNG of the run's folder, whose name tells from which checkpoint it is where one was chosen."""
    return run.folder / f"{stem}{f'-{run.chosen.stem}' if run.chosen else ''}.png"


def plots(model: Model) -> dict[str, PlotOf]:
    """The plots of a model, by name: its family's, and that of the likelihood if it has one."""
    return {**model.family.plots, **({"typicality": typicality} if isinstance(model, HasLogProb) else {})}


def _offers(model: Model) -> str:
    offered = plots(model)
    return f"; it offers: {', '.join(offered)}" if offered else "; it offers no plots"


def _can_sample(model: Model) -> bool:
    return isinstance(model, (Samples, Translates))


def _writable(path: Path) -> Path:
    if path.is_dir() or not path.parent.is_dir():  # drawing can take long: say so now
        raise ValueError(f"--out {path}: must be a file in a folder that exists")
    return path
