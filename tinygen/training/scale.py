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
import math
import time
from typing import Any, NamedTuple

import numpy as np

from tinygen import parallel
from tinygen.parallel import Alone, Array, Pending, Ranks
from tinygen.training.config import Config
from tinygen.training.loop import build
from tinygen.training.trainer import Trainer

STEPS = 5  # that are timed, after one that isn't; the median counts
SMALL, LARGE, TIMES = 2, 1 << 20, 50  # elements of the float64 sums that are timed, and how many times


class Network(NamedTuple):
    """latency: seconds until a message is there; bandwidth: bytes a second between two ranks."""

    latency: float
    bandwidth: float

    def seconds(self, size: int, ranks: int) -> float:
        """Of the sum of so many bytes of each rank."""
        return 2 * math.log2(ranks) * self.latency + 2 * (ranks - 1) / ranks * size / self.bandwidth


@dataclasses.dataclass
class Event:
    """A sum: its bytes, and the seconds since the step's start at which it began and at which it was waited for."""

    size: int
    begun: float
    awaited: float = math.inf

    def done(self) -> bool:
        return True

    def wait(self) -> None:
        self.awaited = min(self.awaited, time.perf_counter())


class Rehearsal(Alone):
    """The first of two ranks of which there is one: its sums are noted."""

    def __init__(self) -> None:
        self.size = 2
        self.events: list[Event] = []

    def start_sum(self, array: Array) -> Pending:
        self.events.append(Event(array.nbytes, time.perf_counter()))
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


def rehearse(config: Config) -> Timeline:
    """The step of a rank with as many images as `config.batch_size`."""
    ranks = Rehearsal()
    with parallel.using(ranks):
        trainer = _trainer(dataclasses.replace(config, batch_size=2 * config.batch_size))
        found = []
        for _ in range(1 + STEPS):
            ranks.events, start = [], time.perf_counter()
            images = trainer.images
            step(trainer)
            seconds = time.perf_counter() - start
            events = [Event(e.size, e.begun - start, e.awaited - start) for e in ranks.events]
            found.append(Timeline(seconds, (trainer.images - images) // 2, events))
    return sorted(found[1:], key=lambda timeline: timeline.seconds)[STEPS // 2]


def measure(config: Config) -> tuple[Network, float]:
    """On several ranks: their network, and the images a second that they really train together."""
    ranks = parallel.current()
    network = measured_network(ranks)
    trainer = _trainer(dataclasses.replace(config, batch_size=ranks.size * config.batch_size))
    step(trainer)
    times = []
    for _ in range(STEPS):
        images, start = trainer.images, time.perf_counter()
        step(trainer)
        times.append((time.perf_counter() - start) / (trainer.images - images))
    return network, 1 / float(np.median(times))


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


def table(timeline: Timeline, network: Network, ranks: list[int], measured: tuple[int, float] | None) -> list[str]:
    """Lines: what so many ranks are predicted to train, and what has been measured of so many."""
    alone = timeline.images / timeline.seconds
    lines = ["   ranks     images/s   of linear   of a step: sums, of which hidden      measured"]
    for p in ranks:
        seconds = timeline.step(network, p) if p > 1 else timeline.seconds
        rate, sums = p * timeline.images / seconds, timeline.communication(network, p) if p > 1 else 0.0
        hidden = f"{1 - (seconds - timeline.seconds) / sums:>8.0%}" if sums else ""
        found = f"{measured[1]:>12,.1f}" if measured and measured[0] == p else ""
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
