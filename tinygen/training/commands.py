"""What can be done with a run: what the commands do, and training at its end."""

from __future__ import annotations

import shlex
from pathlib import Path

from tinygen.data import Dataset
from tinygen.models.model import Model, Plot
from tinygen.report import page as report
from tinygen.report.images import save_picture
from tinygen.training import weights
from tinygen.training.evaluate import figures, picture, samples
from tinygen.training.run import Run


def finish(run: Run, train: Dataset, test: Dataset) -> None:
    """The test figures, samples and all other pictures of a run that is trained, and its report."""
    config, model, state = run.load()
    if run.best.exists():
        run.say(f"from here on with the weights of step {state['step']:,}, whose validation was best")
    _figures(run, model, train, test, config.seed)
    if _samples(model):
        save_picture(run.samples, Plot(samples(model, 64, config.seed)), model.levels)  # as `tinygen sample` does
        run.say(f"samples: {run.samples}")
    for name in model.pictures():
        _draw(run, model, name, train, test, config.seed, run.folder / f"{name}.png")
    report.write(run)
    more = f"; more samples: tinygen sample {run.quoted}" if _samples(model) else ""
    run.say(f"all of it: {run.report}{more}")


def evaluate(run: Run, seed: int) -> None:
    """Say the test figures, beside those of trivial models, and keep them in the run's report."""
    config, model, _ = run.load()
    train, _, test = config.sets()
    binary = ", thresholded: 1 from half the greatest value up" if config.levels == 2 else ""
    run.say(f"{config.model} on {len(test):,} test images of {test.name}, {test.levels} levels{binary}")
    _figures(run, model, train, test, seed)
    report.write(run)
    run.say(f"kept in {run.results} and {run.report}")


def _figures(run: Run, model: Model, train: Dataset, test: Dataset, seed: int) -> None:
    found = figures(model, train, test, seed)
    for figure in found:
        run.say(str(figure))
    kept = [{**figure._asdict(), "beside": dict(figure.beside)} for figure in found]
    run.write_results(run.read_results() | {"figures": kept})


def sample(run: Run, n: int, seed: int, temperature: float, label: int | None, out: Path | None) -> None:
    """Draw images into a PNG."""
    config, model, _ = run.load()
    path = _writable(out or run.folder / f"samples-{seed}.png")
    if not _samples(model):
        raise ValueError(f"{config.model} cannot be sampled from{_offers(model)}")
    drawn = samples(model, n, seed, temperature, label)
    save_picture(path, Plot(drawn), model.levels)
    run.say(f"{n} samples: {path}")


def draw(run: Run, name: str, seed: int, out: Path | None) -> None:
    """Draw one of the model's further pictures into a PNG."""
    config, model, _ = run.load()
    if name not in model.pictures():
        raise ValueError(f"{config.model} has no {name}{_offers(model)}")
    path = _writable(out or run.folder / f"{name}-{seed}.png")
    train, _, test = config.sets()
    _draw(run, model, name, train, test, seed, path)
    report.write(run)


def _draw(run: Run, model: Model, name: str, train: Dataset, test: Dataset, seed: int, path: Path) -> None:
    found = picture(model, name, train, test, seed)
    save_picture(path, found, model.levels)
    results = run.read_results()
    run.write_results(results | {"captions": results.get("captions", {}) | {path.stem: found.caption}})
    run.say(f"{found.caption or name}: {path}")


def export(run: Run, out: Path | None) -> None:
    """Write the weights alone, for PyTorch."""
    config, model, _ = run.load()
    path = _writable(out or run.folder / "weights.safetensors")
    weights.give(model, path)
    run.say(f"{len(model.state_dict())} tensors: {path}")
    run.say(f"in PyTorch: safetensors.torch.load_file({str(path)!r})")
    run.say(f"to start from them here: tinygen train {config.model} --weights {shlex.quote(str(path))} ...")


def _offers(model: Model) -> str:
    return f"; it offers: {', '.join(model.pictures())}" if model.pictures() else ""


def _samples(model: Model) -> bool:
    return type(model).sample is not Model.sample


def _writable(path: Path) -> Path:
    if path.is_dir() or not path.parent.is_dir():  # drawing can take long: say so now
        raise ValueError(f"--out {path}: must be a file in a folder that exists")
    return path
