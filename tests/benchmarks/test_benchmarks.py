"""python -m benchmarks, end to end on one small case, and that what it says is right. No test depends on a time."""

from __future__ import annotations

import itertools
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import tinygen as tg
from benchmarks import compare, report, timing
from benchmarks.kernels import cases, contestants
from tinygen.models.vae.vae import VAE

ROOT = Path(__file__).parents[2]
CASE = "linear, 784 -> 512, N 128"


def benchmarks(*flags, code=0):
    done = subprocess.run([sys.executable, "-m", "benchmarks", *flags], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What a run printed, and the files that it wrote."""
    folder = tmp_path_factory.mktemp("results")
    done = benchmarks("--quick", "--filter", CASE.upper(), "--threads", "1", "--out", str(folder))
    return done.stdout, json.loads((folder / "results.json").read_text()), (folder / "results.md").read_text()


class TestCommand:
    def test_json_has_every_contestant_of_every_row(self, run):
        _, results, _ = run
        assert [(r["case"], r["what"], r["threads"]) for r in results["rows"]] == [
            (CASE, "forward", 1),
            (CASE, "forward + backward", 1),
        ]
        for row in results["rows"]:
            assert {"tinygen", "reference"} <= set(row["seconds"])
            assert row["seconds"].keys() == row["ratio"].keys() == row["cpu_ratio"].keys()
            assert any(name.startswith("PyTorch") for name in row["seconds"]) == (
                results["machine"]["torch"] is not None
            )
            for seconds in row["seconds"].values():
                assert 0 < seconds["min"] <= seconds["median"]
                assert seconds["calls"] >= 1
            assert row["ratio"]["tinygen"] == 1
            assert not row["wrong"]
        assert all(rate > 0 for rate in results["peak_gflops"]["1"].values())

    def test_table_says_what_the_json_holds(self, run):
        _, results, text = run
        tables = [line for line in text.splitlines() if line.startswith(f"| {CASE}")]
        assert len(tables) == 2
        for line, row in zip(tables, results["rows"], strict=True):
            cells = dict(zip(header_of(text, line), map(str.strip, line.split("|")), strict=True))
            assert cells["measured"] == row["what"]
            assert float(cells["NumPy / tinygen"]) == pytest.approx(row["ratio"]["reference"], rel=0.05)
            rate = row["flops"] / row["seconds"]["tinygen"]["median"] / 1e9
            assert float(cells["GFLOP/s"]) == pytest.approx(rate, abs=0.51)
            peak = max(results["peak_gflops"]["1"].values())
            assert float(cells["of peak"].removesuffix(" %")) == pytest.approx(100 * rate / peak, abs=0.51)
        assert results["machine"]["name"] in text

    def test_says_each_row_and_where_the_files_are(self, run):
        said, _, _ = run
        assert re.search(rf"^{CASE}, forward, 1 thread: tinygen ", said, re.MULTILINE)
        assert "results.json, results.md" in said

    def test_unknown_flag_is_refused_with_a_suggestion(self):
        assert "did you mean --filter?" in benchmarks("--filtre", "x", code=2).stderr

    def test_filter_without_a_case_lists_them(self):
        assert CASE in benchmarks("--filter", "no such case", code=2).stderr

    @pytest.mark.parametrize("threads", ["0", "x", "1,", "1,-2"])
    def test_impossible_threads_are_refused(self, threads):
        assert "--threads" in benchmarks("--threads", threads, code=2).stderr

    def test_a_run_goes_on_where_it_was_broken_off(self, run, tmp_path):
        _, results, _ = run
        (tmp_path / "results.json").write_text(json.dumps(results))
        flags = "--quick", "--filter", CASE, "--out", str(tmp_path), "--resume", "--threads"
        done = benchmarks(*flags, "1", "--compare", str(tmp_path))
        assert f"{CASE}, forward" not in done.stdout  # not measured again
        assert "compared 2 rows: 0 slower" in done.stdout
        assert json.loads((tmp_path / "results.json").read_text())["rows"] == results["rows"]
        assert "of another machine or other settings" in benchmarks(*flags, "2", code=2).stderr

    def test_results_that_are_not_there_are_named(self, tmp_path):
        said = benchmarks("--filter", CASE, "--compare", str(tmp_path), "--out", str(tmp_path / "out"), code=2).stderr
        assert "there are no results in" in said

    @pytest.mark.parametrize("isa", ["sse9", "avx2,", ""])
    def test_instruction_sets_that_there_are_not(self, isa):
        assert "is not one of this machine's instruction sets" in benchmarks("--isa", isa, code=2).stderr


class TestComparison:
    def results(self, isa="avx2", **ratios):
        results = report.new(None, [1], False)
        results["machine"]["isa"] = isa
        for case, ratio in ratios.items():
            of = {"tinygen": 1.0, "PyTorch, usual": 9.0, "PyTorch, best": ratio}
            seconds = {name: {"cpu": 1 / ratio} for name in of}
            row = {"case": case, "what": "forward", "threads": 1, "ratio": of, "cpu_ratio": of, "seconds": seconds}
            results["rows"].append(row)
        return results

    def test_what_got_slower_is_named(self):
        before, now = self.results(a=2.0, b=1.0, c=1.0), self.results(a=1.0, b=0.95, d=1.0)
        assert compare.slower(before, now) == [
            "slower: a, forward, threads 1: 0.50 of the speed before",
            "compared 2 rows: 1 slower",
        ]
        for row in before["rows"]:
            row["cpu_ratio"] = {"tinygen": 1.0}  # without PyTorch, by the seconds
        assert compare.slower(before, now)[0] == "slower: a, forward, threads 1: 0.50 of the speed before"
        assert compare.slower(before, self.results("avx512"))[-1] == "before with avx2, now with avx512"

    def test_instruction_sets_are_columns(self):
        text = compare.columns({"avx2": self.results(a=0.5, b=2.0), "avx512": self.results("avx512", a=1.5)})
        assert "| PyTorch's best / tinygen | measured | avx2 | avx512 |" in text
        assert "| a | forward | 0.50 | 1.50 |" in text
        assert "| b | forward | 2.00 |  |" in text

    def test_a_run_on_a_busy_machine_says_that_it_is_worth_nothing(self):
        results = self.results()
        assert "not measured" in report.spread_line(results)
        results["peaks"] = [100.0, 95.0]
        assert report.spread_line(results) == "peak of one thread, after each case: 95 to 100 GFLOP/s, at best 100"
        results["peak_gflops"] = {"1": {"multiply-adds in registers": 120.0}}
        assert "Don't quote these figures." in report.spread_line(results)
        assert "Don't quote these figures." in report.markdown(results)


def header_of(text, line):
    """The column names of the table that a line stands in."""
    above = text[: text.index(line)].splitlines()
    separator = max(i for i, row in enumerate(above) if row.startswith("| ---"))
    return map(str.strip, above[separator - 1].split("|"))


class TestCases:
    def test_names_are_distinct(self):
        names = [c.name for c in cases.CASES] + [g.name for g in cases.GROWTH]
        assert len(names) == len(set(names))

    @pytest.mark.parametrize(
        ("i", "o", "k", "kind", "channels"),
        [(2, 3, 3, "B", 1), (2, 3, 5, "A", 1), (3, 6, 3, "A", 3), (6, 3, 1, "B", 3)],
    )
    def test_useful_flops_are_the_unmasked_products(self, i, o, k, kind, channels):
        # Away from the border, the gradient of the sum to a weight of ones on an image of ones counts a tap's uses.
        case = cases.masked(i, o, k, kind, 8, 2, channels)
        weight = tg.tensor(np.ones((o, i, k, k)), requires_grad=True)
        tg.nn.functional.masked_conv2d(tg.tensor(np.ones((1, i, k, k))), weight, None, kind, channels).sum().backward()
        taps = np.count_nonzero(weight.grad.numpy())
        assert case.flops["forward"] == 2 * taps * 2 * 8 * 8
        assert case.flops["forward + backward"] == 3 * case.flops["forward"]

    def test_flops_of_a_pixelcnn_are_the_sum_over_its_layers(self):
        model = cases.pixelcnn(2, blocks=3, levels=5, size=4)()
        weights = [np.ones(p.shape) for p in model.parameters() if p.ndim == 4]
        kept = {7: 24, 3: 5, 1: 1}
        products = sum(w.shape[0] * w.shape[1] * kept[w.shape[2]] for w in weights)
        assert cases.pixelcnn_flops(2, 3, 5, 4) == 2 * 16 * products

    def test_flops_of_a_vae_are_the_sum_over_its_layers(self):
        model = VAE((1, 28, 28), 2, network="conv", latent=3, hidden=2, likelihood="bernoulli",
                    rng=np.random.default_rng(0))  # fmt: skip
        sides = iter([14, 7, 4, 1, 1, 4, 7, 14])  # the smaller ones of each layer's input and output
        products = sum(p.numel() * next(sides) ** 2 for p in model.parameters() if p.ndim == 4)
        assert cases.vae_step(2, 5, latent=3).flops["training step"] == 3 * 5 * 2 * products

    def test_small_versions_agree_with_the_reference(self):
        for case in (
            cases.masked(3, 6, 3, "B", 5, 2, channels=3), cases.conv(2, 3, 4, 2, 1, 6, 2), cases.row_lstm(2, 4, 2),
            cases.transposed(3, 2, 4, 2, 1, 3, 2), cases.lstm(2, 3, 4, 2), cases.lstm_cells(2, 3, 4, 2),
            cases.diagonal_bilstm(2, 4, 2), cases.batch_norm(3, 4, 2), cases.cross_entropy(5, 3, 2),
            cases.training_step(2, 2, blocks=1, levels=3, size=5), cases.vae_step(2, 2, latent=3),
        ):  # fmt: skip
            found = {name: build() for name, build in contestants.contestants(case, with_torch=False).items()}
            for what in case.flops:
                error = contestants.disagreement(found["tinygen"][what](), found["reference"][what]())
                assert error < 1e-4, (case.name, what)


def test_memory_holds_at_least_the_arrays():
    from benchmarks.kernels import memory

    megabytes = memory.measure(CASE, "tinygen", "forward + backward", 1)
    arrays = 4 * (2 * 128 * 784 + 2 * 512 * 784 + 128 * 512) / 2**20  # inputs, their gradients, the upstream gradient
    assert arrays < megabytes["above"] < megabytes["peak"] < 1000


class TestDisagreement:
    @pytest.mark.parametrize(
        ("a", "b", "expected"),
        [
            (np.array([1.0, 2.0]), np.array([1.0, 4.0]), 0.5),
            ([np.ones(2), np.array([3.0])], [np.ones(2), np.array([3.0])], 0),
            (np.ones(2), np.ones((2, 1)), math.inf),
            (np.array([np.nan]), np.array([1.0]), math.inf),
            (np.array([1.0]), np.array([np.inf]), math.inf),
            (np.array([200], np.uint8), np.array([250], np.uint8), 0.2),
            ([np.ones(1)], [np.ones(1), np.ones(1)], math.inf),
        ],
    )
    def test_largest_difference_over_largest_value(self, a, b, expected):
        assert contestants.disagreement(a, b) == pytest.approx(expected)

    def test_a_wrong_contestant_is_named_and_not_timed(self, monkeypatch):
        monkeypatch.syspath_prepend(str(ROOT))
        from benchmarks import __main__ as command

        case = cases.Case(
            "x", "s", {"forward": 1.0}, lambda: {"forward": lambda: np.ones(3)}, dict, reference=False,
            extra={"off": lambda: {"forward": lambda: np.full(3, 1.1)}},
        )  # fmt: skip
        (row,) = command.measure(case, 1, 0.001, False, False)
        assert row["wrong"] == {"off": pytest.approx(0.1)}
        assert set(row["seconds"]) == {"tinygen"}
        assert "NOT TIMED: off is off by 1.0e-01" in report.line(row)


class TestTiming:
    def test_ratio_is_the_median_of_the_ratios_within_turns(self):
        ours = timing.Timing([[1.0, 1.0, 9.0], [10.0], [2.0]], [1.0, 2.0, 0.0])
        theirs = timing.Timing([[3.0], [20.0, 20.0, 30.0], [10.0]], [4.0, 4.0, 4.0])
        assert timing.ratio(theirs, ours) == 3  # of 3, 2, 5: turn 2 was slow for both
        assert timing.ratio(theirs, ours, "cpu") == 3  # of 4, 2; the clock was too coarse for turn 3
        assert theirs.summary() == {"median": 20.0, "min": 3.0, "cpu": 4.0, "calls": 5}

    def test_contestants_take_turns(self, monkeypatch):
        clock = itertools.count(step=1e-3).__next__
        monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=clock, process_time=clock))
        calls = []
        timings = timing.alternate({name: lambda name=name: calls.append(name) for name in "ab"}, 0.05)
        turns = [name for i, name in enumerate(calls) if i == 0 or calls[i - 1] != name]
        assert {len(t.turns) for t in timings.values()} <= {len(turns) // 2, len(turns) // 2 + 1, len(turns)}
        assert len(turns) >= 3

    def test_growth_and_memory_have_tables(self):
        def point(x, ours, *theirs):
            seconds = {"tinygen": ours} | {f"PyTorch, {i}": s for i, s in enumerate(theirs)}
            return {"x": x, "seconds": {name: {"median": s} for name, s in seconds.items()}}

        results = report.new(None, [1], False)
        points = [point(x, x**1.5, x**3.0, 4 * x**2.0) for x in (4, 16, 64)]
        results["growth"] = [{"name": "g", "x": "pixels", "what": "sampling", "points": points}]
        row = {"case": "c", "what": "forward", "threads": 1, "contestant": "tinygen", "peak": 30.4, "above": 12.6}
        results["memory"] = [row]
        text = report.markdown(results)
        assert "| g: sampling, x = pixels | 4 | 64 | x^1.50 | x^2.00 |" in text  # the best of PyTorch's at each x
        assert "| c | forward | 1 | tinygen | 13 | 30 |" in text

    def test_slope_is_the_exponent(self):
        xs = [1, 2, 4, 8, 16]
        assert report.slope(xs, [x**2.5 for x in xs]) == pytest.approx(2.5)


STEPS = [
    cases.flow_step("realnvp", 2), cases.diffusion_step(2), cases.translation_step("pix2pix", 2),
    cases.translation_step("cyclegan", 2), cases.biggan_step(2),
]  # fmt: skip


@pytest.mark.parametrize("case", STEPS, ids=lambda case: case.name)
def test_a_training_step_of_a_model_gives_its_losses(case):
    (what,) = case.flops
    step = case.ours()[what]
    first, second = (np.asarray(x.numpy() if hasattr(x, "numpy") else x) for x in (step(), step()))
    assert np.isfinite(first).all()
    assert not np.array_equal(first, second)  # it learns
