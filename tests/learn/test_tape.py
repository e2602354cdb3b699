"""The recording of a step: each number is the step's, nothing is missing, and the page says it all as text."""

from __future__ import annotations

import functools
import html.parser
import json
import operator
import os
import re

import numpy as np
import pytest

import tinygen
from tests.models.small import SMALL
from tinygen import nn, optim, tensor
from tinygen.cli.main import main
from tinygen.gradcheck.causal import dependencies
from tinygen.learn import Tape, fold, page, sources
from tinygen.nn import functional as F
from tinygen.tape import REGISTRY
from tinygen.training import recording
from tinygen.training.config import Config
from tinygen.training.loop import build
from tinygen.training.trainer import Trainer

FULL = os.environ.get("TINYGEN_FULL") == "1"


def trainer(name, **options):
    of_digits = {"classes": 10, "labels": 10}  # as many as there are, and one of each
    options = {k: of_digits.get(k, v) for k, v in options.items()}
    levels = 2 if name in ("rbm", "dbm", "gsn") else None
    config = Config.of({"model": name, "options": options, "levels": levels, "batch_size": 2, "epochs": 1.0})
    data, rng = config.sets()[0], np.random.default_rng(0)
    return Trainer(config, build(config, data, rng), data, rng)


def recorded(name, **options):
    made = trainer(name, **options)
    made.model.train()
    with Tape(made.model) as tape:
        parts = made.advance(0.0)
    return made, tape, parts


def small_net(rng):
    return nn.Sequential(nn.Linear(3, 4, rng=rng), nn.Tanh(), nn.Linear(4, 2, rng=rng))


@pytest.fixture(scope="module")
def pixelcnn():
    return recorded("pixelcnn", hidden=4, blocks=3)


def test_a_recorded_step_is_the_step(pixelcnn):
    made, _, parts = pixelcnn
    other = trainer("pixelcnn", hidden=4, blocks=3)
    other.model.train()
    assert other.advance(0.0) == parts
    for a, b in zip(made.model.parameters(), other.model.parameters(), strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-6, atol=1e-9)


def test_sums_of_gradients_are_events_of_their_own():
    a = tensor([1.0, 2.0], requires_grad=True)
    with Tape() as tape:
        b = a + a
        c = b + b
        c.sum().backward()
    seen = [(e.phase, e.op, e.of) for e in tape.events]
    assert seen == [
        ("forward", "add", -1), ("forward", "add", -1), ("forward", "sum", -1), ("backward", "sum", 2),
        ("backward", "add", 1), ("accumulate", "add", 0), ("backward", "add", 0), ("accumulate", "add", "leaf 1"),
    ]  # fmt: skip
    np.testing.assert_array_equal(a.grad.numpy(), [4, 4])
    assert tape.events[5].out[0].head == [2, 2]  # b's gradient is complete before its rule runs
    assert tape.events[7].out[0].head == [4, 4]


def test_a_gradient_that_is_summed_to_its_shape_is_an_event():
    a, b = tensor(np.ones((3, 2)), requires_grad=True), tensor(np.ones(2), requires_grad=True)
    with Tape() as tape:
        (a * b).sum().backward()
    summed = [e for e in tape.events if e.op == "sum_to"]
    assert [(e.phase, e.of, e.out[0].shape) for e in summed] == [("accumulate", "leaf 2", (2,))]


def test_where_arrays_come_from_and_gradients_go():
    rng = np.random.default_rng(0)
    net = small_net(rng)
    with Tape(net) as tape:
        (net(tensor(rng.standard_normal((5, 3)).astype(np.float32))) ** 2).mean().backward()
    forward = [(e.op, e.came) for e in tape.events if e.phase == "forward"]
    assert forward == [
        ("linear", ["", "0.weight", "0.bias"]), ("tanh", [0]), ("linear", [1, "2.weight", "2.bias"]), ("pow", [2]),
        ("mean", [3]),
    ]  # fmt: skip
    goes = [e.goes for e in tape.events if e.phase == "backward"]
    assert goes == [[3], [2], [1, "2.weight", "2.bias"], [0], ["0.weight", "0.bias"]]
    assert [tape.scopes[e.scope].name for e in tape.events[:3]] == ["0", "1", "2"]


def test_numbers_are_those_of_the_arrays():
    rng = np.random.default_rng(0)
    x = tensor(rng.standard_normal((2, 3, 4, 5)), requires_grad=True)
    with Tape() as tape:
        y = x.exp()
        y.sum().backward()
    s, values = tape.events[0].out[0], y.numpy()
    assert (s.shape, s.dtype, s.bytes, s.not_finite) == ((2, 3, 4, 5), "float64", 960, 0)
    np.testing.assert_allclose(
        [s.least, s.most, s.mean, s.rms],
        [values.min(), values.max(), values.mean(), np.sqrt((values**2).mean())], rtol=1e-14,
    )  # fmt: skip
    assert s.head == values.ravel()[:6].tolist()
    assert tape.leaves["leaf 1"].gradient.mean == pytest.approx(values.mean())


def test_saved_bytes_are_those_that_the_nodes_hold():
    rng = np.random.default_rng(0)
    net = small_net(rng)
    x = tensor(rng.standard_normal((5, 3)).astype(np.float32))
    with Tape(net) as tape:
        loss = (net(x) ** 2).mean()
        held, stack = {}, [loss._source[1]]
        while stack:
            node = stack.pop()
            held |= {id(v): v.nbytes for v in node.saved if hasattr(v, "nbytes")}
            stack += [parent for _, parent in node.parents if parent]
        loss.backward()
    forward = [e for e in tape.events if e.phase == "forward"]
    assert forward[-1].held == sum(held.values()) > 0
    assert tape.events[-1].held == 0
    with Tape(net) as tape:
        (net(x) ** 2).mean().backward(retain_graph=True)
    assert tape.events[-1].held == sum(held.values())


def test_the_optimizers_step_is_seen():
    rng = np.random.default_rng(0)
    net = small_net(rng)
    before = net[0].weight.numpy().copy()
    optimizer = optim.SGD(net.parameters(), lr=0.1)
    with Tape(net) as tape:
        net(tensor(np.ones((1, 3), np.float32))).sum().backward()
        optimizer.step()
    change = net[0].weight.numpy() - before
    expected = np.sqrt((change**2).mean() / (before**2).mean())
    assert tape.leaves["0.weight"].update == pytest.approx(expected)


@pytest.mark.parametrize("blocks", [2, 12])
def test_a_repetition_is_one_row(blocks):
    _, tape, _ = recorded("pixelcnn", hidden=2, blocks=blocks)

    def count(rows):
        return sum(1 + count(row.rows[:1] if row.kind == "repeat" else row.rows) for row in rows)

    rows = fold.rows(tape)
    assert count(rows) == 18
    repeats = [row for row in _all(rows) if row.kind == "repeat"]
    assert [len(row.rows) for row in repeats] == [blocks]


def _all(rows):
    return [found for row in rows for found in (row, *_all(row.rows))]


@pytest.mark.parametrize("name", SMALL if FULL else list(SMALL)[::6])
def test_every_model_has_a_short_first_view_and_nothing_is_lost(name):
    model, options = SMALL[name]
    _, tape, _ = recorded(model, **options)
    rows = fold.rows(tape)
    forward = [i for i, e in enumerate(tape.events) if e.phase == "forward"]
    assert [i for row in rows for i in row.events()] == forward
    opened = page._opened(rows)
    shown = len(rows) + sum(len(r.rows[:1] if r.kind == "repeat" else r.rows) for r in _all(rows) if id(r) in opened)
    assert shown <= page.ROWS or not opened


def test_one_number_worked_out_adds_up(pixelcnn):
    _, tape, _ = pixelcnn
    found = [e.terms for e in tape.events if e.terms]
    assert len(found) == 12
    for t in found:
        total = sum(v for _, v in t.start) + sum(term.product for term in t.terms) + t.rest
        assert total == pytest.approx(t.value, rel=1e-4, abs=1e-5)
    assert found[0].left_out == 25  # mask A leaves 24 of 49 taps
    assert [name for name, _ in found[3].start] == ["bias", "skip connection"]


def test_the_source_of_each_op_is_found():
    for op in REGISTRY.values():
        if not op.body.__module__.startswith("tinygen.ops"):
            continue
        excerpts = sources.of_op(op)
        assert re.match(r"(@op.*\n)?def ", excerpts[0].text)
        assert len([x for x in excerpts if x.title.startswith("gradient")]) == len(op.rules)
        for x in excerpts:
            lines = (sources.CSRC.parent / x.file).read_text().splitlines()
            assert lines[x.first - 1] == x.text.splitlines()[0]


def test_the_source_of_each_kernel_is_found(pixelcnn):
    _, tape, _ = pixelcnn
    for name in {k for e in tape.events for k in e.kernels}:
        titles = [x.title for x in sources.of_kernel(name)]
        assert titles[:3] == [f"{name}, declared", f"{name}, in C", f"{name}, in CUDA"]
        for x in sources.of_kernel(name)[:3]:
            assert f"{name}(" in x.text


@pytest.mark.parametrize("name", [*sources.PRODUCTS, "tg_cross_entropy", "tg_tanh", "tg_gated"])
def test_where_a_kernels_numbers_come_about_is_found(name):
    loops = sources.of_kernel(name)[3:]
    assert len(loops) == len(sources.PRODUCTS.get(name, [0]))
    for x in loops:
        lines = (sources.CSRC.parent / x.file).read_text().splitlines()
        assert lines[x.first - 1 : x.first - 1 + len(x.text.splitlines())] == x.text.splitlines()
        if name in sources.PRODUCTS:
            assert "+=" in lines[x.line - 1]
            assert "*" in x.text.splitlines()[x.line - x.first]
    assert bool(sources.adds(name)) == (name in sources.PRODUCTS)


def test_the_page_says_why_gradients_meet_and_what_a_masked_layer_sees(tmp_path):
    _, tape, _ = recorded("pixelcnn", hidden=2, blocks=1)
    config = Config.of({"model": "pixelcnn", "options": {"hidden": 2, "blocks": 1}, "epochs": 1.0})
    tape.write(tmp_path / "tape.html", fields=list(recording.fields(config, config.sets()[0])))
    said = re.sub("<[^>]+>", "", (tmp_path / "tape.html").read_text())
    (meeting,) = [i for i, e in enumerate(tape.events) if e.phase == "accumulate"]
    assert "of 0 conv2d, each of which was taken more than once" in said
    assert "Its output is taken by 1 conv2d, 3 conv2d." in said
    assert f"Event {meeting}: a gradient of this output was added to what had come before: it was taken 2 times" in said
    assert "layers.0: 24 pixels; rows 1 to 3: columns 1 to 7; row 4: columns 1 to 3" in said
    assert re.search(r"x\d+x1x8x8, [^f]+for the gradient by weight, bias\D", said)  # an image needs no gradient
    assert "tg_conv2d (multiplies and adds at csrc/tile.inc:" in said


class Reader(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.ids, self.links, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if "href" in found else []
        assert "src" not in found

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_is_whole_by_itself(pixelcnn, tmp_path):
    _, tape, _ = pixelcnn
    tape.write(tmp_path / "tape.html")
    text = (tmp_path / "tape.html").read_text()
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in text
    assert "default-src 'none'" in text
    reader = Reader()
    reader.feed(text)
    assert len(reader.ids) == len(set(reader.ids))
    assert {link[1:] for link in reader.links} <= set(reader.ids)
    forward = [i for i, e in enumerate(tape.events) if e.phase == "forward"]
    assert {f"e{i}" for i in forward} <= set(reader.ids)
    data = json.loads(re.search(r"id=data>(.*?)</script>", text, re.S)[1])
    assert len(data["events"]) == len(tape.events)
    assert [e[0] for e in data["events"]] == [e.phase[0] for e in tape.events]
    said = " ".join(reader.text)
    assert "A 7x7 convolution with mask A" not in said  # the class; but what of it ran:
    assert "return self.by_level(self.layers(x))" in said
    assert "def conv2d(x, weight" in said
    assert "tg_conv2d" in said


def test_gradients_stand_beside_finite_differences():
    config = Config.of({"model": "dcgan", "options": {"width": 4}, "batch_size": 2, "epochs": 1.0})
    _, tape, _ = recorded("dcgan", width=4)
    found = recording.checked(config, config.sets()[0], tape)
    assert len(found) >= 8
    assert {c.leaf.split(".")[1] for c in found} == {"generator", "discriminator"}
    for c in found:
        assert abs(c.gradient - c.difference) <= c.bound < 1e-4, c


def test_a_kink_of_a_relu_close_by_is_in_the_bound():
    config = Config.of({"model": "pixelcnn", "options": {"hidden": 8, "blocks": 2}, "batch_size": 4, "epochs": 1.0})
    _, tape, _ = recorded("pixelcnn", hidden=8, blocks=2)
    for c in recording.checked(config, config.sets()[0], tape):
        assert abs(c.gradient - c.difference) <= c.bound, c
    p = tensor(np.array([1e-8, 1.0]), requires_grad=True)
    check = recording._check("p", p, np.array([3.0, 0.0]), lambda: (3 * F.relu(p)).sum())
    assert check.difference == pytest.approx(1.5, abs=0.1)  # half of the slope, since the kink is within the step
    assert abs(3.0 - check.difference) <= check.bound


def test_what_the_middle_pixel_sees_is_what_the_proof_of_causality_says():
    config = Config.of({"model": "pixelcnn", "options": {"hidden": 2, "blocks": 1}, "epochs": 1.0})
    *layers, whole = recording.fields(config, config.sets()[0])
    model = build(config, config.sets()[0], np.random.default_rng(0)).to(np.float64).eval()
    matrix = dependencies(lambda x: model.logits(x), np.zeros(model.image_shape))
    np.testing.assert_array_equal(np.array(whole.values) > 0, matrix[4 * 8 + 4].reshape(8, 8) > 0)
    seen = [sum(v > 0 for row in f.values for v in row) for f in layers]
    assert seen[0] == 24  # the 7x7 convolution with mask A
    assert seen == sorted(seen)


def test_the_command_writes_a_page(tmp_path, capsys):
    out = tmp_path / "t.html"
    assert main(["tape", "vae", "--hidden", "8", "--latent", "2", "--batch-size", "2", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"\d+ ops, \d+ gradient rules, \d+ sums of gradients: .*t\.html", said)
    text = out.read_text()
    assert "Are the gradients right?" in text
    assert "reconstruction" in text
    assert len(text) < 1 << 20


def test_it_costs_nothing_while_nobody_records():
    assert not tinygen.modes.current.get().hooks
    with Tape():
        pass
    assert not tinygen.modes.current.get().hooks
    x = tensor([1.0], requires_grad=True)
    functools.reduce(operator.mul, [x, x]).backward()
    assert x.grad.item() == 2
