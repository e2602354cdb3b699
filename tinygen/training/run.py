"""The run folder: all that a training run leaves behind, and all that is needed to go on with it.

runs/pixelcnn-1/
    last.safetensors    the model, the optimizers, the generator, the place in the data, and the configuration
    best.safetensors    the model as it was when its validation was best; what is sampled and evaluated
    config.toml         the configuration, for people and for `tinygen train --config`
    environment.toml    versions and machine
    metrics.csv         the numbers of every step
    samples/            what the model draws after so many steps
    samples.png         what it draws at the end
    results.json        the test metrics and those of trivial models, and what they cost
    log.txt             what was said
    report.html         all of it as one page
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import fcntl
import itertools
import json
import os
import resource
import shlex
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinygen.console import say
from tinygen.models.registry import model_class
from tinygen.report.files import write_text
from tinygen.training import checkpoint
from tinygen.training.checkpoint import CheckpointError
from tinygen.training.config import Config, toml
from tinygen.training.environment import environment

CHECKPOINT = "last.safetensors"
METRICS = "metrics.csv"
_NUMBER = (int, float)
_METRIC = {"name": str, "value": _NUMBER, "unit": str, "error": (*_NUMBER, type(None)), "baselines": {str: _NUMBER}}
RESULTS: dict[str, Any] = {  # what of results.json the report is made of: types, lists of what [0] is, dicts
    "step": int, "images": int, "seconds": _NUMBER, "parameters": int, "flops": _NUMBER,
    "metrics": [_METRIC], "messages": [{"step": int, "text": str}], "captions": {str: str}, "baselines": {str: _NUMBER},
}  # fmt: skip
BUILDING = 1 << 26, 16  # bytes that building a model may take, and how many times its file's size more


class Run:
    """A run folder.

    Attributes:
        checkpoint: what training goes on from.
        chosen: what is sampled and evaluated, if it isn't the best.
        device: where models compute, "cpu" or "cuda". No part of what the folder holds.
    """

    def __init__(self, folder: Path, chosen: Path | None = None) -> None:
        self.folder, self.chosen, self.device = folder, chosen, "cpu"
        self.checkpoint = folder / CHECKPOINT
        self.best = folder / "best.safetensors"
        self.metrics = folder / METRICS
        self.samples = folder / "samples.png"
        self.snapshots = folder / "samples"
        self.results = folder / "results.json"
        self.log = folder / "log.txt"
        self.report = folder / "report.html"

    @classmethod
    def create(cls, name: str, out: Path | None = None) -> Run:
        """A new folder: `out`, or the first free one of runs/NAME-1, runs/NAME-2, ...

        Raises FileExistsError rather than give a folder that has files in it.
        """
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
    def existing(cls, path: Path) -> Run:
        """The run in a folder, or for "last" the one of runs/ that was saved last, or that of a checkpoint file.

        Raises FileNotFoundError if there is none.
        """
        if str(path) == "last":
            checkpoints = list(Path("runs").glob(f"*/{CHECKPOINT}"))
            if not checkpoints:
                raise FileNotFoundError("there is no run in the folder runs")
            path = max(checkpoints, key=lambda path: path.stat().st_mtime_ns).parent
        if path.is_file():
            return cls(path.parent, path)
        return cls(path)._found()

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

    # -- texts

    def begin(self, config: Config) -> None:
        """Write down what is asked for, and where it runs."""
        (self.folder / "config.toml").write_text(config.toml(), encoding="utf-8", errors="backslashreplace")
        (self.folder / "environment.toml").write_text(toml(environment()), encoding="utf-8")

    def say(self, text: str) -> None:
        """Tell people, and keep it in the log."""
        say(text)
        self.note(text)

    def note(self, text: str) -> None:
        """A line in the log, with the time. A log that can't be written stops nothing."""
        with contextlib.suppress(OSError), self.log.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}\n" for line in text.splitlines())

    def read_results(self) -> dict[str, Any]:
        """The results that `write_results` wrote; none, and that is said, if something else stands there."""
        try:
            results = json.loads(self.results.read_text(encoding="utf-8"))
            if isinstance(results, dict) and all(_alike(results[k], RESULTS[k]) for k in results.keys() & RESULTS):
                return results
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError):
            pass
        self.say(f"{self.results} is not as tinygen writes it: it is begun anew")
        return {}

    def write_results(self, results: dict[str, Any]) -> None:
        """Figures and costs, as JSON."""
        write_text(self.results, json.dumps(results, indent=2, ensure_ascii=False) + "\n")

    def add_rows(self, rows: list[dict[str, Any]], columns: list[str]) -> None:
        """Append lines to metrics.csv; numbers are written so that they read back bit for bit."""
        if not rows:
            return
        with self.metrics.open("a", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            if not file.tell():
                writer.writeheader()
            writer.writerows(rows)

    def sync_metrics(self) -> None:
        """Return when metrics.csv is on the disk as it is: a power cut would else leave it behind a checkpoint."""
        with contextlib.suppress(FileNotFoundError), self.metrics.open("rb") as file:
            os.fsync(file.fileno())

    def rewind(self, step: int) -> None:
        """Drop the metrics and the snapshots of later steps: they were not saved and are done again."""
        for path in self.snapshots.glob("step-*.png"):
            if path.stem[5:].isdigit() and int(path.stem[5:]) > step:
                path.unlink()
        end = 0
        with self.metrics.open("a+b") as file:
            file.seek(0)
            for line in file:
                number = line.partition(b",")[0]
                if not line.endswith(b"\n") or (number.isdigit() and int(number) > step):
                    break
                end += len(line)
            file.truncate(end)

    # -- checkpoints

    def save(self, path: Path, config: Config, model: Any, **state: Any) -> None:
        """Write a checkpoint. `state`: trees of dicts, lists, arrays and numbers (the optimizers', the data's)."""
        tensors: dict[str, np.ndarray] = {}
        tree = _pack({"model": model.state_dict(), **state}, "", tensors)
        about = {"config": dataclasses.asdict(config), "image_shape": list(model.image_shape), "levels": model.levels}
        checkpoint.save(path, tensors, about | {"state": tree})

    def load(self, path: Path | None = None) -> tuple[Config, Any, dict[str, Any]]:
        """The configuration, the model as it was in a checkpoint, and the rest of the state.

        path: by default the best checkpoint or, where there is none, the last.

        Raises FileNotFoundError if there is no checkpoint, CheckpointError if it is damaged or not of this model, or
        claims one that needs far more memory than the file's size warrants.
        """
        path = path or self.chosen or (self.best if self.best.exists() else self._found().checkpoint)
        outline, about = checkpoint.outline(path)
        try:
            config = Config.of(about["config"])
            rng = np.random.default_rng(0)  # the initial weights are overwritten
            shape, levels = tuple(about["image_shape"]), about["levels"]
            # shapes are known only when it is built, which takes what `config` claims, not what the file has
            with _little_memory(BUILDING[0] + BUILDING[1] * path.stat().st_size):
                model = model_class(config.model)(shape, levels, **config.options, rng=rng)
            model.load_state_dict(_unpack(about["state"], outline)["model"])  # refused before the tensors are read
            tensors, about = checkpoint.load(path)
            state = _unpack(about["state"], tensors)
            model.load_state_dict(state.pop("model"))
        except (AttributeError, KeyError, TypeError, ValueError, MemoryError) as e:
            what = f"it has no {e}" if isinstance(e, KeyError) else str(e)
            if isinstance(e, MemoryError):
                what = "the model that it describes is far larger than the file"
            raise CheckpointError(f"{path}: not a checkpoint that this tinygen can use: {what}") from e
        return config, model.to(self.device).eval(), state


@contextlib.contextmanager
def _little_memory(size: int) -> Iterator[None]:
    """Within it the process can't take more than `size` bytes beyond what it has: MemoryError (on Linux)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:  # no Linux
        yield
        return
    least = min(limit for limit in (soft, hard, used + size) if limit != resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_AS, (least, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _alike(value: Any, pattern: Any) -> bool:
    """Whether a value from JSON is built as a pattern of RESULTS says."""
    if isinstance(pattern, list):
        return isinstance(value, list) and all(_alike(one, pattern[0]) for one in value)
    if isinstance(pattern, dict) and str in pattern:
        return isinstance(value, dict) and all(_alike(one, pattern[str]) for one in value.values())
    if isinstance(pattern, dict):
        return isinstance(value, dict) and all(k in value and _alike(value[k], one) for k, one in pattern.items())
    return isinstance(value, pattern)


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


def names(runs: Sequence[Run]) -> list[str]:
    """What runs are called beside each other: their folders' names, or the paths if two have the same name."""
    found = [run.folder.resolve().name for run in runs]
    return found if len(set(found)) == len(found) else [str(run.folder) for run in runs]
