"""What more ranks would bring: a model of a training step's time, made of what one process and its network take.

One process takes the steps of a rank, with the sums of a rank, which cost nothing here; when each sum began and when it
was waited for is written down. Then the step is played again with sums that take

    2 log2(p) latency + 2 (p - 1) / p bytes / bandwidth

for p ranks (Thakur, Rabenseifner & Gropp 2005, section 4.4, without the additions), one after the other on the network.
What backward hides is hidden there, too; the rest makes the step longer. Every rank has as many images, however many
ranks there are. Left out: ranks that are slower than others, networks that several share, and what rank 0 does besides.

Source: Thakur, Rabenseifner & Gropp, Optimization of collective communication operations in MPICH (2005).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tinygen import parallel
from tinygen.parallel import Array, Pending, Ranks
from tinygen.parallel.ranks import ALONE
from tinygen.training.config import Config
from tinygen.training.loop import build
from tinygen.training.trainer import Trainer

FIRST, SECONDS, ROUNDS = (
    3,
    0.1,
    12,
)  # steps that aren't timed; seconds in which some are, and how often; the median counts
SMALL, LARGE, TIMES = 2, 1 << 20, 50  # elements of the float64 sums that are timed, and how many times
WIDTH = 72  # characters of a step in the picture of its sums


class Network(NamedTuple):
    """latency: seconds until a message is there; bandwidth: bytes a second between two ranks."""

    latency: float
    bandwidth: float

    def seconds(self, size: int, ranks: int) -> float:
        """Of the sum of so many bytes of each rank."""
        return 2 * math.log2(ranks) * self.latency + 2 * (ranks - 1) / ranks * size / self.bandwidth


@dataclasses.dataclass
class Event:
    """A sum or a copy: its bytes, and when it began, was waited for and was there, in seconds since the step's start.

    A sum that was there when it was asked for may have been there before. See `Pending`.
    """

    size: int
    begun: float
    awaited: float = math.inf
    there: float = math.inf
    pending: Pending = ALONE

    def done(self) -> bool:
        if found := self.pending.done():
            self.there = min(self.there, time.perf_counter())
        return found

    def wait(self) -> None:
        self.awaited = min(self.awaited, time.perf_counter())
        self.pending.wait()
        self.there = min(self.there, time.perf_counter())

    def since(self, start: float) -> Event:
        """The same by another clock."""
        return Event(self.size, self.begun - start, self.awaited - start, self.there - start)


class Noting:
    """Ranks whose sums are noted: see `Ranks`.

    ranks: what does the sums. size: how many ranks it says there are.
    """

    def __init__(self, ranks: Ranks, size: int) -> None:
        self.ranks, self.rank, self.size, self.sharded = ranks, ranks.rank, size, ranks.sharded
        self.events: list[Event] = []
        self.waited, self.names = 0.0, ranks.names

    def start_sum(self, array: Array, root: int | None = None) -> Pending:
        return self._noted(array, time.perf_counter(), self.ranks.start_sum(array, root))

    def start_copy(self, array: Array, root: int) -> Pending:
        return self._noted(array, time.perf_counter(), self.ranks.start_copy(array, root))

    def broadcast(self, value: Any, root: int = 0) -> Any:
        return self.ranks.broadcast(value, root)

    def _noted(self, array: Array, begun: float, pending: Pending) -> Pending:
        self.events.append(Event(array.nbytes, begun, pending=pending))
        return self.events[-1]


class Timeline(NamedTuple):
    """A step: its seconds where sums cost nothing, its images, and its sums."""

    seconds: float
    images: int
    events: list[Event]

    def step(self, network: Network, ranks: int) -> float:
        """The seconds of a step of so many ranks."""
        moments = [(e.begun, 0, e) for e in self.events] + [(e.awaited, 1, e) for e in self.events]
        late, free, ends = 0.0, 0.0, dict[int, float]()  # how late the step is; when the network is free
        for moment, waits, event in sorted(moments, key=lambda m: m[:2]):
            if not waits:
                free = ends[id(event)] = max(free, moment + late) + network.seconds(event.size, ranks)
            elif moment < math.inf:
                late = max(late, ends[id(event)] - moment)
        return self.seconds + late

    def communication(self, network: Network, ranks: int) -> float:
        """The seconds of all sums together, of so many ranks."""
        return sum(network.seconds(e.size, ranks) for e in self.events)

    @property
    def size(self) -> int:
        """The bytes that a rank sums."""
        return sum(e.size for e in self.events)

    @property
    def hidden(self) -> float:
        """Of the time in which a sum was on its way, how much the rank did something else."""
        moments = sorted({moment for e in self.events for moment in (e.begun, e.awaited, e.there) if moment < math.inf})
        on_the_way = waiting = 0.0
        for a, b in itertools.pairwise(moments):
            if any(e.begun <= a < e.there for e in self.events):
                on_the_way += b - a
                waiting += (b - a) * any(e.awaited <= a < e.there for e in self.events)
        return 1 - waiting / on_the_way if on_the_way else 1.0

    def picture(self) -> list[str]:
        """Lines: the step's sums, one below the other."""
        at = WIDTH / self.seconds
        lines = []
        for e in self.events:
            begun, awaited, there = (
                min(WIDTH, int(moment * at)) for moment in (e.begun, min(e.awaited, e.there), e.there)
            )
            bar = " " * begun + "=" * max(1, awaited - begun) + "#" * (there - awaited)
            lines.append(f"{e.size / 1e3:>9,.1f} kB |{bar:<{WIDTH}.{WIDTH}}|")
        return lines


class Steps:
    """Steps of a training that are timed, with as many images a rank as `config.batch_size`."""

    def __init__(self, config: Config, ranks: Noting) -> None:
        self.ranks, self.found = ranks, list[Timeline]()
        with parallel.using(ranks):
            self.trainer = _trainer(dataclasses.replace(config, batch_size=ranks.size * config.batch_size))
        self.take(FIRST)
        self.together = max(1, ranks.broadcast(math.ceil(SECONDS / self.median().seconds)))  # in one go
        self.found.clear()

    def take(self, steps: int) -> None:
        """So many steps more."""
        with parallel.using(self.ranks):
            for _ in range(steps):
                self.ranks.events, start = [], time.perf_counter()
                images = self.trainer.images
                step(self.trainer)
                seconds = time.perf_counter() - start
                events = [e.since(start) for e in self.ranks.events]
                self.found.append(Timeline(seconds, (self.trainer.images - images) // self.ranks.size, events))

    def median(self) -> Timeline:
        """The step that took neither long nor short."""
        return sorted(self.found, key=lambda timeline: timeline.seconds)[len(self.found) // 2]


def rehearse(config: Config) -> Timeline:
    """The step of a rank, of which there seem to be two."""
    steps = Steps(config, Noting(ALONE, 2))
    steps.take(ROUNDS * steps.together)
    return steps.median()


def measure(config: Config) -> tuple[Network, dict[int, Timeline]]:
    """On several ranks: their network; a step by its number of ranks: rehearsed (0), of rank 0 without the others (1)
    and of all of them together. In turns, a few steps at a time, since a machine's clock isn't steady.
    """
    ranks = parallel.current()
    rehearsed, together = Steps(config, Noting(ALONE, 2)), Steps(config, Noting(ranks, ranks.size))
    alone = None if ranks.rank else Steps(config, Noting(ALONE, 1))
    for _ in range(ROUNDS):
        if alone:
            alone.take(alone.together)
        parallel.total(0)  # meanwhile the others sleep
        rehearsed.take(rehearsed.together)
        together.take(together.together)
        parallel.total(0)
    found = {0: rehearsed.median(), ranks.size: together.median()} | ({1: alone.median()} if alone else {})
    return measured_network(ranks), found


def measured_network(ranks: Ranks) -> Network:
    """By sums of few and of many bytes: the medians."""
    seconds = []
    for elements in (SMALL, LARGE):
        array, times = np.zeros(elements), []
        for _ in range(TIMES):
            start = time.perf_counter()
            ranks.start_sum(array).wait()
            times.append(time.perf_counter() - start)
        seconds.append(float(np.median(times)))
    size = 2 * (ranks.size - 1) / ranks.size * 8 * (LARGE - SMALL)
    return Network(seconds[0] / (2 * math.log2(ranks.size)), size / max(seconds[1] - seconds[0], 1e-9))


def step(trainer: Trainer) -> None:
    """A step, with what the loop adds to it on several ranks."""
    with np.errstate(all="ignore"):
        trainer.advance(0.0)
    parallel.total([0.0, 0.0])


def _trainer(config: Config) -> Trainer:
    data = config.sets()[0]
    if len(data) < config.batch_size:
        raise ValueError(f"--batch-size: {data.name} has {len(data):,} images, a minibatch takes {config.batch_size:,}")
    rng: Any = np.random.default_rng(config.seed)
    model = build(dataclasses.replace(config, weights=None), data, rng)
    trainer = Trainer(config, model, data, rng)
    model.train()
    return trainer


def table(timeline: Timeline, network: Network, ranks: list[int], measured: Mapping[int, Timeline]) -> list[str]:
    """Lines: what so many ranks are predicted to train, and what has been measured of so many."""
    alone = timeline.images / timeline.seconds
    lines = ["   ranks     images/s   of linear   of a step: sums, of which hidden      measured, hidden"]
    for p in ranks:
        seconds = timeline.step(network, p) if p > 1 else timeline.seconds
        rate, sums = p * timeline.images / seconds, timeline.communication(network, p) if p > 1 else 0.0
        hidden = f"{1 - (seconds - timeline.seconds) / sums:>8.0%}" if sums else ""
        found = ""
        if really := measured.get(p):
            found = f"{p * really.images / really.seconds:>12,.1f}" + (f"{really.hidden:>8.0%}" if p > 1 else "")
        share = f"{sums / seconds:>21.1%}" if sums else f"{'none':>21}"
        lines.append(f"{p:>8,} {rate:>12,.1f} {rate / p / alone:>11.1%} {share} {hidden:>14} {found:>13}".rstrip())
    return [*lines, first_to_break(timeline, network, max(ranks))]


def first_to_break(timeline: Timeline, network: Network, ranks: int) -> str:
    """In words, what most of the sums' time is made of for so many ranks."""
    if ranks < 2:
        return "one rank adds nothing up"
    latency = len(timeline.events) * 2 * math.log2(ranks) * network.latency
    size = timeline.communication(network, ranks) - latency
    what = f"latency, of {len(timeline.events)} sums a step: more images a rank" if latency > size else (
        f"bandwidth, for {timeline.size / 1e6:,.1f} MB a step: more images a rank, or a faster network")  # fmt: skip
    return f"what breaks first with {ranks:,} ranks: {what}"
