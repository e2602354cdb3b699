"""The run folder: all that a training run leaves behind, and all that is needed to go on with it.

runs/pixelcnn-1/
    last.safetensors    the model, the optimizer, the generator, the place in the data, and the configuration
    metrics.csv         the loss of every step
    samples.png         what the model draws at the end
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import fcntl
import itertools
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tinygen.data import Dataset, load, quantize
from tinygen.models import model_class
from tinygen.training import checkpoint
from tinygen.training.checkpoint import CheckpointError

CHECKPOINT = "last.safetensors"
METRICS = "metrics.csv"


@dataclasses.dataclass
class Config:
    """What a run was asked to do. `options` are the model's own arguments."""

    model: str
    data: str = "digits"
    levels: int | None = None  # None: the data set's own
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 0
    batch_size: int = 16
    lr: float = 2e-3
    epochs: float | None = None
    minutes: float | None = None

    def datasets(self) -> tuple[Dataset, Dataset]:
        """The training and the test set, in the levels asked for."""
        train, test = load(self.data)
        if self.levels is not None and self.levels != train.levels:
            train, test = quantize(train, self.levels), quantize(test, self.levels)
        return train, test


class Run:
    """A run folder. Raises FileExistsError rather than write into a folder that has files in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoint = folder / CHECKPOINT
        self.metrics = folder / METRICS
        self.samples = folder / "samples.png"

    @classmethod
    def create(cls, name: str, out: Path | None = None) -> Run:
        """A new folder: `out`, or the first free one of runs/NAME-1, runs/NAME-2, ..."""
        if out is not None:
            if out.exists() and (not out.is_dir() or any(out.iterdir())):
                raise FileExistsError(f"--out {out}: exists and is not an empty folder; name another")
            out.mkdir(parents=True, exist_ok=True)
            (out / METRICS).touch(exist_ok=False)  # of two runs that came here at once, one goes on
            return cls(out)
        Path("runs").mkdir(exist_ok=True)
        for number in itertools.count(1):
            folder = Path("runs") / f"{name}-{number}"
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                break
        return cls(folder)

    @classmethod
    def existing(cls, folder: Path) -> Run:
        """The run in a folder, or for "last" the one of runs/ that was saved last.

        Raises FileNotFoundError if there is none.
        """
        if str(folder) == "last":
            checkpoints = list(Path("runs").glob(f"*/{CHECKPOINT}"))
            if not checkpoints:
                raise FileNotFoundError("there is no run in the folder runs")
            folder = max(checkpoints, key=lambda path: path.stat().st_mtime_ns).parent
        return cls(folder)._found()

    def _found(self) -> Run:
        if not self.checkpoint.exists():
            raise FileNotFoundError(f"{self.folder} is no run folder: it has no {CHECKPOINT}")
        return self

    @property
    def quoted(self) -> str:
        """The folder as a shell understands it."""
        return shlex.quote(str(self.folder))

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Within it no other process trains into this folder; a process that dies lets go by itself.

        Raises FileExistsError if one does already.
        """
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as e:
                raise FileExistsError(f"{self.folder}: another process is training this run") from e
            except OSError:  # a file system without locks
                pass
            yield
        finally:
            os.close(descriptor)

    def log(self, rows: list[dict[str, Any]]) -> None:
        """Append lines to metrics.csv; numbers are written so that they read back bit for bit."""
        if not rows:
            return
        with self.metrics.open("a", newline="") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            if not file.tell():
                writer.writeheader()
            writer.writerows(rows)

    def rewind(self, step: int) -> None:
        """Drop from metrics.csv what came after a step: it was not saved and is done again."""
        end = 0
        with self.metrics.open("a+b") as file:
            file.seek(0)
            for line in file:
                number = line.partition(b",")[0]
                if not line.endswith(b"\n") or (number.isdigit() and int(number) > step):
                    break
                end += len(line)
            file.truncate(end)

    def save(self, config: Config, model: Any, **state: Any) -> None:
        """Write the checkpoint. `state`: trees of dicts, lists, arrays and numbers (the optimizer's, the data's)."""
        tensors: dict[str, np.ndarray] = {}
        tree = _pack({"model": model.state_dict(), **state}, "", tensors)
        about = {"config": dataclasses.asdict(config), "image_shape": list(model.image_shape), "levels": model.levels}
        checkpoint.save(self.checkpoint, tensors, about | {"state": tree})

    def load(self) -> tuple[Config, Any, dict[str, Any]]:
        """The configuration, the model as it was trained so far, and the rest of the state.

        Raises FileNotFoundError if there is no checkpoint, CheckpointError if it is damaged or not of this model.
        """
        tensors, about = checkpoint.load(self._found().checkpoint)
        try:
            config = Config(**about["config"])
            generator = np.random.default_rng(0)  # the initial weights are overwritten
            shape, levels = tuple(about["image_shape"]), about["levels"]
            model = model_class(config.model)(shape, levels, **config.options, generator=generator)
            state = _unpack(about["state"], tensors)
            model.load_state_dict(state.pop("model"))
        except (AttributeError, KeyError, TypeError, ValueError) as e:
            what = f"it has no {e}" if isinstance(e, KeyError) else e
            raise CheckpointError(f"{self.checkpoint}: not a checkpoint that this tinygen can use: {what}") from e
        model.eval()
        return config, model, state


def _pack(tree: Any, name: str, tensors: dict[str, np.ndarray]) -> Any:
    """The tree with its arrays moved into `tensors`, their names (`model.layers.0.weight`) in their place."""
    if isinstance(tree, np.ndarray):
        tensors[name] = tree
        return {"tensor": name}
    if isinstance(tree, dict):
        return {str(k): _pack(v, f"{name}.{k}" if name else str(k), tensors) for k, v in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_pack(v, f"{name}.{i}", tensors) for i, v in enumerate(tree)]
    return tree


def _unpack(tree: Any, tensors: dict[str, np.ndarray]) -> Any:
    if isinstance(tree, dict):
        if tree.keys() == {"tensor"}:
            return tensors[tree["tensor"]]
        return {k: _unpack(v, tensors) for k, v in tree.items()}
    return [_unpack(v, tensors) for v in tree] if isinstance(tree, list) else tree
