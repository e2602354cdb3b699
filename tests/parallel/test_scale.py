"""tinygen scale: a step that is played again with sums that take time."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from tinygen.cli.main import main
from tinygen.parallel import Alone, current
from tinygen.training.config import Config
from tinygen.training.scale import WIDTH, Event, Network, Noting, Timeline, rehearse, table

SLOW = Network(latency=0.0, bandwidth=1e3)  # with two ranks a byte takes a millisecond


def test_a_sum_takes_latency_by_the_logarithm_of_the_ranks_and_its_bytes_at_most_twice():
    assert Network(1e-3, 1e3).seconds(0, 8) == pytest.approx(6e-3)
    assert SLOW.seconds(1000, 2) == pytest.approx(1.0)
    assert SLOW.seconds(1000, 1024) == pytest.approx(2 * 1023 / 1024)


@pytest.mark.parametrize(
    ("events", "seconds"),
    [
        ([], 4),
        ([Event(1000, 1, 1)], 5),  # waited for at once: all of it
        ([Event(1000, 1, 3)], 4),  # backward takes longer: none
        ([Event(1000, 1, 3), Event(1500, 1.5, 3)], 4.5),  # one after the other on the network: until 3.5
        ([Event(1000, 1, 1), Event(1000, 2, 2)], 6),  # the second begins later, since the first made the step late
        ([Event(1000, 1)], 4),  # never waited for
    ],
)
def test_a_step_waits_for_what_backward_does_not_hide(events, seconds):
    assert Timeline(4.0, 10, events).step(SLOW, 2) == pytest.approx(seconds)


def test_the_table_has_rates_and_what_is_hidden():
    measured = {1: Timeline(0.8, 10, []), 2: Timeline(1.6, 10, [Event(1000, 0.5, 1.0, 1.5), Event(8, 0.2, 0.2, 0.3)])}
    lines = table(Timeline(1.0, 10, [Event(1000, 0.5, 1.0)]), SLOW, [1, 2], measured)
    assert lines[1].split() == ["1", "10.0", "100.0%", "none", "12.5"]
    assert lines[2].split() == ["2", "13.3", "66.7%", "66.7%", "50%", "12.5", "45%"]  # a sum of 1 s, half of it hidden
    assert lines[3].startswith("what breaks first with 2 ranks: bandwidth, for 0.0 MB a step: more images a rank")
    assert "latency, of 1 sums a step" in table(Timeline(1.0, 10, [Event(8, 0.5, 1)]), Network(1, 1e9), [8], {})[-1]


def test_the_picture_shows_when_sums_are_on_their_way_and_when_they_are_waited_for():
    events = [Event(8000, 0.0, 0.0, 0.0), Event(500, 0.25, 0.75, 1.0), Event(100, 0.5, 0.9, 0.6)]
    free, waited, hidden = Timeline(1.0, 1, events).picture()
    at = WIDTH // 4
    assert free == f"      8.0 kB |={' ' * (WIDTH - 1)}|"
    assert waited == f"      0.5 kB |{' ' * at}{'=' * 2 * at}{'#' * at}|"
    assert "#" not in hidden
    assert Timeline(1.0, 1, events).hidden == pytest.approx(2 / 3)  # nothing is waited for but from .75 to 1


def test_what_is_noted_of_a_sum_is_when_it_was_first_seen_to_be_there():
    class Slow(Alone):
        ready = False

        def done(self):
            return self.ready

    noting = Noting(slow := Slow(), 2)
    event = noting.start_sum(np.zeros(3))
    assert not event.done()
    assert (event.size, event.there) == (24, math.inf)
    slow.ready = True
    assert event.done()
    there = event.there
    event.wait()
    assert event.begun < there == event.there < event.awaited


def test_a_rehearsed_step_has_the_sums_of_a_rank():
    timeline = rehearse(Config.of({"model": "dcgan", "options": {"width": 16}, "batch_size": 4, "epochs": 1.0}))
    assert timeline.images == 4
    assert current().size == 1
    assert timeline.seconds > max(e.awaited for e in timeline.events if e.awaited < math.inf) >= 0
    assert sum(e.size > 1500 for e in timeline.events) == 2  # the buckets of D and of G
    assert len(timeline.events) > 6  # and batch norm's statistics


def test_the_command_predicts_and_says_what_breaks_first(capsys):
    assert main(["scale", "vae", "--hidden", "8", "--ranks", "1,2,64", "--bandwidth", "10", "--latency", "2"]) == 0
    first, _, *rows, last = capsys.readouterr().out.splitlines()
    assert "latency 2.0 us, bandwidth 10 GB/s" in first
    assert [int(re.sub(",", "", row.split()[0])) for row in rows] == [1, 2, 64]
    assert last.startswith("what breaks first with 64 ranks: ")
    assert main(["scale", "textgan"]) == 2
    assert "textgan can't be trained by 2 ranks" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["scale", "vae", "--ranks", "1,x"])
    assert "argument --ranks: must be a whole number, at least 1, got 'x'" in capsys.readouterr().err
