"""The pieces of a page: what is said of an op, of arrays, of leaves."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any

from tinygen import markup
from tinygen.learn import sources
from tinygen.learn.arrays import Summary
from tinygen.learn.record import Event, Leaf, Recording
from tinygen.learn.sources import short
from tinygen.learn.terms import Terms
from tinygen.markup import text
from tinygen.tape import REGISTRY

NAMED = 8  # places at most where gradients are added that the page's head names


def head(title: str) -> str:
    """How a page begins."""
    return markup.head(title, resources.files("tinygen.learn").joinpath("tape.css").read_text())


def size(n: int) -> str:
    """Bytes in a few digits."""
    for unit, least in (("MB", 1 << 20), ("kB", 1 << 10)):
        if n >= least:
            return f"{n / least:.3g} {unit}"
    return f"{n} bytes"


def number(value: float) -> str:
    """With four digits."""
    return f"{value + 0.0:.4g}"  # -0 is 0


# ----------------------------------------------------------------------------------------------------------- an op


def op(tape: Recording, index: int) -> str:
    """All that is known of a forward op: its output, what it saved, how its gradient came."""
    event = tape.events[index]
    came = ", ".join(_link(tape, source) for source in event.came) or "nothing"
    goes = ", ".join(_link(tape, user) for user in tape.users.get(index, []))
    attributes = "".join(f", {text(k)} = {text(v)}" for k, v in event.attributes.items())
    parts = [
        f"<p>From {came}{attributes}. Called at <code>{text(short(event.site))}</code>. "
        f"<a href='#op-{event.op}'>Definition, rules, kernels</a></p>",
        f"<p>Its output is taken by {goes}.</p>" if goes else "",
        f"<p>{_kernels(event)}</p>" if event.kernels else "",
        _unfolded(event), *(array("Output", s) for s in event.out), _saved(tape, index), _terms(event.terms),
        *_backward(tape, index),
    ]  # fmt: skip
    return f"<div class=body>{''.join(parts)}</div>"


def _kernels(event: Event) -> str:
    """The C functions that ran, and where they multiply and add."""
    told = {k: f" (multiplies and adds at {sources.adds(k)})" if sources.adds(k) else "" for k in event.kernels}
    return f"Kernels: {', '.join(f'<code>{k}</code>{where}' for k, where in told.items())}."


def _link(tape: Recording, source: int | str) -> str:
    if isinstance(source, int) and source >= 0:
        return f"<a href='#e{source}'>{source} {text(tape.events[source].op)}</a>"
    return f"<b>{text(source)}</b>" if isinstance(source, str) and source else "data"


def _unfolded(event: Event) -> str:
    """What a fused op does, step by step, in the lecture's words."""
    if event.op != "conv2d":
        return ""
    geometry = event.attributes.get("geometry", "")
    steps = ["relu of the input"] if event.attributes.get("relu") == "True" else []
    mask = geometry.partition("mask='")[2][:1]
    steps += [f"mask {mask}: the weights that would see the pixel's future are left out"] if mask else []
    steps += ["convolution", "+ bias"] + (["+ skip connection"] if len(event.came) > 3 else [])
    return f"<p>One op does: {' &rarr; '.join(steps)}.</p>" if len(steps) > 2 else ""


def _saved(tape: Recording, index: int) -> str:
    event = tape.events[index]
    if not event.saved:
        return "<p>It saved nothing.</p>"
    rows = []
    given = {argument for i in tape.about.get(index, []) for argument in tape.events[i].wanted}
    for s in event.saved:
        what = text(s.text) if s.shape is None else f"{'x'.join(map(str, s.shape)) or 'a number'}, {size(s.bytes)}"
        rows.append(f"<tr><td><code>{text(s.name)}</code><td>{what}<td>{text(_why(event.op, s.name, given))}")
    head = "<h4>Saved, since the gradient rules compute with it</h4>"
    return f"{head}<table class=saved>{''.join(rows)}</table>"


def _why(op: str, name: str, given: set[str]) -> str:
    """Which gradients need it, of those that were asked for: whose rules have a parameter of this name."""
    rules = [targets for targets, rule in REGISTRY[op].rules if name in inspect.signature(rule).parameters]
    wanted = [t for targets in rules for t in targets if t in given or not given]
    return f"for the gradient by {', '.join(wanted)}" if wanted else ""


def _terms(terms: Terms | None) -> str:
    if terms is None:
        return ""
    rows = [f"<tr><td>{text(name)}<td><td><td>{number(value)}" for name, value in terms.start]
    rows += [f"<tr><td>{text(t.label)}<td>{number(t.weight)}<td>{number(t.input)}<td>{number(t.product)}"
             for t in terms.terms]  # fmt: skip
    rows += [f"<tr><td>{terms.others} smaller products<td><td><td>{number(terms.rest)}"] if terms.others else []
    rows += [f"<tr><td>{terms.left_out} weights left out by the mask<td><td><td>"] if terms.left_out else []
    return (
        f"<h4>One number worked out: {text(terms.place)}</h4><table class=terms><tr><th><th>weight<th>input<th>product"
        f"{''.join(rows)}<tr class=sum><td>sum, as the op gave it<td><td><td>{number(terms.value)}</table>"
    )


def _backward(tape: Recording, index: int) -> list[str]:
    parts = []
    uses = len(tape.users.get(index, []))
    for i in tape.about.get(index, []):
        e = tape.events[i]
        if e.phase == "accumulate":
            why = f": it was taken {uses} times, so as many gradients meet" if uses > 1 else ""
            what = "summed to the shape of the output" if e.op == "sum_to" else f"added to what had come before{why}"
            parts.append(f"<p>Event {i}: a gradient of this output was {what}.</p>{array('The sum', e.out[0])}")
        if e.phase == "backward":
            kernels = f" {_kernels(e)}" if e.kernels else ""
            parts += [f"<h4>Backward, event {i}</h4>", *(array("Gradient of the output", s) for s in e.took)]
            parts += [f"<p>The rule ran.{kernels}</p>"]
            goes = zip(e.goes, e.out, strict=False)
            parts += [array(f"Gradient of {_link(tape, owner)}", s, True) for owner, s in goes]
    return parts


# -------------------------------------------------------------------------------------------------------- arrays


def array(title: str, s: Summary, safe: bool = False) -> str:
    """An array's numbers: a line of statistics, a histogram, the first values, and a picture that JavaScript draws."""
    shape = "x".join(map(str, s.shape)) or "a number"
    order = f", {s.order} in memory" if s.order == "NHWC" else ""
    bad = f", <b>{s.not_finite} not finite</b>" if s.not_finite else ""
    zeros = f", {s.zeros} zeros" if s.zeros else ""
    line = f"from {number(s.least)} to {number(s.most)}, mean {number(s.mean)}, rms {number(s.rms)}{zeros}{bad}"
    head = ", ".join(number(v) for v in s.head)
    thumb = ""
    if s.thumb:
        t = s.thumb
        values = f"{t.height},{t.width},{t.panels},{t.values}"
        thumb = f"<canvas role=img aria-label='picture: {line}' data-t='{values}'></canvas>"
    what = f"{title if safe else text(title)}: <b>{shape}</b> {s.dtype}{order}, {size(s.bytes)}"
    return (
        f"<figure><figcaption>{what}</figcaption>{thumb}<p>{line}</p>{_histogram(s)}<p class=head>{head}</p></figure>"
    )


def _histogram(s: Summary) -> str:
    if s.most <= s.least:
        return ""
    bars = "".join(f"M{4 * i} 30v{-0.3 * h:.0f}" for i, h in enumerate(s.histogram) if h)
    return f"<svg class=h viewBox='-2 0 98 30' aria-hidden=true><path d='{bars}'/></svg>"


# -------------------------------------------------------------------------------------------------- other sections


def leaves(found: Iterable[Leaf]) -> str:
    """The table of parameters: value, gradient, and how far the optimizer went."""
    rows = []
    for leaf in found:
        g = leaf.gradient
        rows.append(
            f"<tr><td>{text(leaf.name)}<td>{'x'.join(map(str, leaf.value.shape)) or '1'}<td>{number(leaf.value.rms)}"
            f"<td>{number(g.rms) if g else 'none'}<td>{f'{leaf.update:.2%}' if leaf.update is not None else ''}"
        )
    head = "<tr><th>parameter<th>shape<th>rms<th>rms of its gradient<th>change by the step"
    return (
        f"<section><h2>The parameters</h2><table class=numbers>{head}{''.join(rows)}</table></section>" if rows else ""
    )


def checks(found: Sequence[Any]) -> str:
    """Gradients beside finite differences."""
    if not found:
        return ""
    rows = [
        f"<tr><td>{text(c.leaf)}[{', '.join(map(str, c.element))}]<td>{c.gradient:.8g}<td>{c.difference:.8g}"
        f"<td>{c.bound:.1g}" for c in found
    ]  # fmt: skip
    head = "<tr><th>element<th>gradient<th>finite difference<th>its error, at most"
    said = "The loss was computed again with this one number a little larger and a little smaller, in float64."
    table = f"<table class=numbers>{head}{''.join(rows)}</table>"
    return f"<section><h2>Are the gradients right?</h2><p>{said}</p>{table}</section>"


def fields(found: Sequence[Any]) -> str:
    """What the middle pixel sees, layer by layer, as pictures."""
    if not found:
        return ""
    pictures = []
    for f in found:
        seen = sum(v > 0 for row in f.values for v in row)
        cells = "".join(
            f"<rect x={x} y={y} width=.94 height=.94 fill-opacity={0.15 + 0.85 * v:.2f} />"
            for y, row in enumerate(f.values) for x, v in enumerate(row) if v > 0
        )  # fmt: skip
        h, w = len(f.values), len(f.values[0])
        pictures.append(
            f"<figure class=field><svg viewBox='0 0 {w} {h}' aria-hidden=true><rect class=all "
            f"width={w} height={h} />{cells}<circle cx={f.middle[1] + 0.5} cy={f.middle[0] + 0.5} r=.3 /></svg>"
            f"<figcaption>{text(f.layer)}: {seen} pixels{_spans(f.values)}</figcaption></figure>"
        )
    y, x = found[0].middle
    said = (
        f"The dot is the middle pixel, row {y}, column {x}. Colored are the pixels of the image that the output there "
    )
    said += "depends on, as gradients say: of the first layer, then of all layers up to each, and of the whole model."
    return f"<section id=fields><h2>What the middle pixel sees</h2><p>{said}</p>{''.join(pictures)}</section>"


def _spans(values: Sequence[Sequence[float]]) -> str:
    """Where numbers above 0 stand: "; rows 1 to 3: columns 1 to 7; row 4: columns 1 to 3"."""
    ends = [(min(xs), max(xs)) if (xs := [x for x, v in enumerate(row) if v > 0]) else None for row in values]
    told, rows = "", enumerate(ends)
    for span, group in itertools.groupby(rows, key=lambda row: row[1]):
        if span:
            ys = [y for y, _ in group]
            told += f"; row{f's {ys[0]} to' if len(ys) > 1 else ''} {ys[-1]}: columns {span[0]} to {span[1]}"
    return told


def meetings(tape: Recording) -> str:
    """Where gradients are added, as links to the rows in whose details it stands."""
    found = dict.fromkeys(e.of for e in tape.events if e.phase == "accumulate" and e.op == "add")
    links = [_link(tape, owner) for owner in found if owner != -1]
    more = f" and {len(links) - NAMED} more" if len(links) > NAMED else ""
    return f": of {', '.join(links[:NAMED])}{more}, each of which was taken more than once" if links else ""


# ------------------------------------------------------------------------------------------------------- stepping


def row_of(tape: Recording, index: int) -> int:
    """The forward event in whose row an event is shown; -1 for a leaf's sum."""
    event = tape.events[index]
    return index if event.phase == "forward" else event.of if isinstance(event.of, int) else -1


def sentence(tape: Recording, index: int) -> str:
    """What happens, in a sentence."""
    event = tape.events[index]
    name = tape.scopes[event.scope].name if event.scope >= 0 else ""
    where = f"{event.op}{f', {name}' if name and name != event.op else ''}"
    if event.phase == "forward":
        kept = sum(s.bytes for s in event.saved)
        return f"forward: {where}{f'; saves {size(kept)}' if kept else ''}"
    if event.phase == "accumulate":
        owner = event.of if isinstance(event.of, str) else f"{event.of} {tape.events[event.of].op}"
        return (
            f"a second gradient of {owner} arrives, and is added"
            if event.op == "add"
            else f"a gradient of {owner} is summed to its shape"
        )
    goes = ", ".join(g if isinstance(g, str) else f"{g} {tape.events[g].op}" for g in event.goes)
    return f"backward: {where}; gives the gradient of {goes or 'nothing'}"
