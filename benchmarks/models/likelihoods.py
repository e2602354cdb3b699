"""python -m benchmarks.models: every model with a likelihood on Fashion-MNIST after equally many images.

Each model is trained, evaluated on the test set, timed and drawn from, one after the other. results.json is written
after each, so that the same command goes on where it was stopped; models.md is the table, NAME.png a grid of samples.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy's own threads would get in the way of tinygen's

import json
import math
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from tinygen import kernels
from tinygen.cli.parser import Parser, number, whole_number
from tinygen.data import Dataset
from tinygen.models.model import SIGNS, Model
from tinygen.models.registry import model_class
from tinygen.report.images import save_grid
from tinygen.training.run import Config
from tinygen.training.trainer import Trainer

DATA, IMAGES, QUICK, BATCH, SEED = "fashion-mnist", 128_000, 3_200, 64, 0
TIMED = 3.0  # seconds of training steps that are timed


@dataclass(frozen=True)
class Entry:
    """A model, and how it is trained. What its figure is, the model's `evidence` says."""

    name: str
    model: str
    options: dict[str, Any] = field(default_factory=dict)
    levels: int = 2
    lr: float = 2e-3

    @property
    def sign(self) -> str:
        """What stands before its figure."""
        return SIGNS[model_class(self.model).evidence]


ENTRIES = [
    Entry("FVSBN", "made", {"hidden": 0}, lr=1e-3),
    Entry("NADE", "nade", {"hidden": 200}, lr=2e-2),
    Entry("MADE", "made", {"hidden": 500}, lr=1e-3),
    Entry("PixelCNN, plain", "pixelcnn", {"hidden": 16, "blocks": 6, "residual": False}),
    Entry("PixelCNN", "pixelcnn", {"hidden": 16, "blocks": 7}),
    Entry("Gated PixelCNN", "gated", {"hidden": 16, "layers": 5}),
    Entry("Gated PixelCNN, told the class", "gated", {"hidden": 16, "layers": 5, "classes": 10}),
    Entry("Row LSTM", "pixelrnn", {"rnn": "row", "hidden": 16, "layers": 2}),
    Entry("Diagonal BiLSTM", "pixelrnn", {"rnn": "diagonal", "hidden": 16, "layers": 2}),
    Entry("Multi-scale, Row LSTM", "multiscale", {"rnn": "row", "hidden": 16, "layers": 2}),
    Entry("VAE", "vae", {"likelihood": "bernoulli"}, lr=1e-3),
    Entry("RBM", "rbm", lr=0.2),
    Entry("DBM", "dbm", lr=0.2),
    Entry("PixelCNN, 256 levels", "pixelcnn", {"hidden": 16, "blocks": 7}, levels=256),
    Entry("PixelCNN++", "pixelcnnpp", {"hidden": 16}, levels=256),
    Entry("NICE", "nice", levels=256, lr=1e-3),
    Entry("RealNVP", "realnvp", levels=256, lr=1e-3),
    Entry("Glow", "glow", levels=256, lr=1e-3),
    Entry("FFJORD", "ffjord", levels=256, lr=1e-3),  # on average over its estimate of the trace
]


def main(argv: list[str] | None = None) -> int:
    """Train what isn't in results.json yet, and write the table."""
    args = parser().parse_args(argv)
    chosen = [e for e in ENTRIES if args.only.lower() in e.name.lower()]
    if not chosen:
        print(f"benchmarks.models: no model has {args.only!r} in its name; there are "
              + ", ".join(e.name for e in ENTRIES), file=sys.stderr)  # fmt: skip
        return 2
    kernels.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    results = Results(args.out, QUICK if args.quick else args.images)
    for entry in chosen:
        row = results.rows.get(entry.name)
        if row is None or args.times:
            train, test = data(entry.levels)
            if args.quick and test.labels is not None:
                test = Dataset(test.images[:500], test.levels, test.labels[:500], test.name, test.classes)
            if row is None:
                row, model = trained(entry, train, test, max(1, results.images // BATCH), args.minutes)
                images = model.sample(60, np.random.default_rng(SEED))  # of classes in turn: ten columns
                save_grid(args.out / f"{entry.name}.png", images, entry.levels, columns=10)
            row["times"] = times(entry, train)
            results.add(entry.name, row)
            print(results.line(entry.name, row), flush=True)
    print(results.table())
    return 0


def parser() -> Parser:
    p = Parser(prog="python -m benchmarks.models", description=__doc__.splitlines()[0])
    p.add_argument("--quick", action="store_true", help="few images: does it work, how long does it take?")
    p.add_argument("--only", default="", metavar="SUBSTRING", help="only models with this in their names")
    p.add_argument("--images", type=whole_number, default=IMAGES, help="trained on by each (default %(default)s)")
    p.add_argument("--minutes", type=number, default=math.inf, help="stop training a model after so many")
    p.add_argument("--times", action="store_true", help="of models that are done measure the times again")
    p.add_argument("--threads", type=whole_number, default=kernels.get_num_threads(), help="(default %(default)s)")
    p.add_argument("--out", type=Path, default=Path("benchmarks/results/models"), help="folder (default %(default)s)")
    return p


def data(levels: int) -> tuple[Dataset, Dataset]:
    """Training and test set."""
    return Config("vae", DATA, levels).datasets()


def training(entry: Entry, train: Dataset, batch_size: int = BATCH) -> Trainer:
    rng = np.random.default_rng(SEED)
    model = model_class(entry.model)(train.images.shape[1:], train.levels, **entry.options, rng=rng)
    config = Config(entry.model, DATA, entry.levels, entry.options, SEED, batch_size, entry.lr)
    return Trainer(config, model, train, rng)


def trained(
    entry: Entry, train: Dataset, test: Dataset, steps: int, minutes: float
) -> tuple[dict[str, Any], Model]:  # fmt: skip
    """What is known of a model after so many steps, or minutes; and the model."""
    state, start = training(entry, train), time.monotonic()
    model, done = state.model, 0.0
    model.train()
    while done < 1:
        parts = state.advance(done)
        done = max(state.step / steps, (time.monotonic() - start) / (60 * minutes))
        if state.step % 100 == 0:
            minute = (time.monotonic() - start) / 60
            print(
                f"{entry.name}: {state.step}/{steps}, {minute:.1f} min, {model.family.progress(model, parts)}",
                flush=True,
            )
    row = {
        "parameters": sum(p.numel() for p in model.parameters()), "images": state.images,
        "levels": entry.levels, "seconds": round(time.monotonic() - start, 1),
    }  # fmt: skip
    model.eval()
    metrics = model.family.metrics(model, train, test, np.random.default_rng(SEED))
    return row | {"test images": len(test), "metrics": [metric.json() for metric in metrics]}, model


def times(entry: Entry, train: Dataset) -> dict[str, Any]:
    """Milliseconds that an image takes: in training in batches of 64, in drawing 1 and 16, with weights as drawn."""
    state = training(entry, train)
    steps = [seconds(lambda: state.advance(0.0))]
    while sum(steps) < TIMED or len(steps) < 4:
        steps.append(seconds(lambda: state.advance(0.0)))
    state.model.eval()
    found: dict[str, Any] = {"training": 1e3 * statistics.median(steps[1:]) / BATCH}
    for n in (1, 16):
        draws: list[float] = []
        while not draws or (len(draws) < 3 and sum(draws) < TIMED):
            draws.append(seconds(lambda n=n: state.model.sample(n, np.random.default_rng(SEED))))
        found[f"sample, {n}"] = 1e3 * min(draws) / n
    return found | {"threads": kernels.get_num_threads(), "load": report.load()}


def seconds(run: Any) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


class Results:
    """What is known so far: results.json and models.md in a folder."""

    def __init__(self, folder: Path, images: int) -> None:
        self.folder, self.images, self.path = folder, images, folder / "results.json"
        self.machine = report.new(None, [], False)["machine"]
        self.rows: dict[str, Any] = {}
        if self.path.exists():
            before = json.loads(self.path.read_text())
            if before["images"] != images:
                raise SystemExit(f"benchmarks.models: {self.path} is of {before['images']:,} images a model: remove it")
            self.rows = before["rows"]

    def add(self, name: str, row: dict[str, Any]) -> None:
        self.rows[name] = row
        everything = {"data": DATA, "images": self.images, "machine": self.machine, "rows": self.rows}
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(everything, indent=1))
        new.replace(self.path)
        (self.folder / "models.md").write_text(self.table() + "\n")

    def table(self) -> str:
        """Markdown: a line a model, in the table's order, the baselines of each number of levels before them."""
        head = ["model", "parameters", "test, nats", "bits/dim", "training", "drawing 1", "drawing 16"]
        lines = [" | ".join(head), " | ".join(["---"] * len(head))]
        for levels in (2, 256):
            some = {e.name: self.rows[e.name] for e in ENTRIES if e.levels == levels and e.name in self.rows}
            for row in list(some.values())[:1]:
                nats, bits = shown(row)
                for name in bits["baselines"]:
                    cells = f"{nats['baselines'][name]:.1f}", f"{bits['baselines'][name]:.3f}"
                    lines.append(" | ".join([f"*{name}, {levels} levels*", "", *cells, "", "", ""]))
            lines += [self.line(name, row) for name, row in some.items()]
        return "\n".join(f"| {line} |" for line in lines)

    def line(self, name: str, row: dict[str, Any]) -> str:
        nats, bits = shown(row)
        sign = next(e.sign for e in ENTRIES if e.name == name)
        test = f"{sign}{nats['value']:.1f} +- {nats['error']:.1f}", f"{sign}{bits['value']:.3f}"
        spent = [f"{row['times'][k]:.3g} ms" for k in ("training", "sample, 1", "sample, 16")]
        return " | ".join([name, f"{row['parameters']:,}", *test, *spent])


def shown(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The metrics of a row that the table shows: the first in nats, and the first in bits/dim."""
    return [next(f for f in row["metrics"] if f["unit"] == unit) for unit in ("nats an image", "bits/dim")]


if __name__ == "__main__":
    sys.exit(main())
