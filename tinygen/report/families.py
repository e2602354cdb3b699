"""families.html: members of all families beside each other, and what of the lecture's claims their figures show."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinygen.metrics.metric import Chart
from tinygen.models.model import SIGNS
from tinygen.report.charts import save_chart
from tinygen.report.claims import BITS, Member, findings
from tinygen.report.files import write_text
from tinygen.report.parts import image, images, page, read_toml, section, text

PAGE = "families.html"
COLUMNS = {  # of the table: metrics by their beginning, or by their unit
    BITS: "-log p(x), bits/dim", "FD*": "FD*", "precision": "precision", "recall": "recall",
    "sharpness": "sharpness", "linear probe": "probe, %", "a sample": "ms a sample",
    "a sample, drawn alone": "ms a sample, alone", "a training image": "ms a training image", "memory": "MiB",
}  # fmt: skip
NOTES = (
    "-log p(x) without a sign is exact. <= is a bound, which can only be too large: a worse bound needn't be a worse "
    "model. ~ rests on an estimate of log Z, which errs to the good side. Where there is a dash, the model says "
    "nothing of p(x), and no other figure takes its place.",
    "FD*, precision and recall rest on features that were learned on this data set, and on the number of samples: they "
    "can be compared within this table, and with nothing published.",
    "Of a VAE the means of p(x given z) are drawn, as it is usually shown; with each pixel's own noise FD* is worse.",
    "Sharpness is the variance of the Laplacian, over that of real images: below 1 is blurred, above 1 is noise.",
    "Probe: how many test images a linear classifier tells rightly by the features of 100 labeled ones, on average "
    "over 5 draws of these; of models that have features.",
    "Each model has its default size and rates, which were not chosen for this budget: other ones could change the "
    "order. Times are CPU time of one thread, of a sample in drawing all of them together, and alone.",
    "Memory is the peak of the whole process in training, the data set included.",
)


def write(path: Path, members: Sequence[Member]) -> None:
    """Write the page of what is measured so far; and its tables as Markdown beside it, in families.md."""
    known = [m for m in members if m.results.get("metrics")]
    config = read_toml(members[0].folder / "config.toml")
    data = Path(str(config.get("data", "?"))).stem
    title = f"Families of models on {data}"
    seeds = len({m.seed for m in known})
    samples = known[0].results["samples"] if known else 0
    about = (f"Each trained for {config.get('minutes', 0):g} CPU minutes, with {seeds} seed{'s' * (seeds != 1)}; "
             f"{samples:,} samples of each are measured.")  # fmt: skip
    drawn = [m for m in known if (m.folder / "samples.png").exists()]
    pictures = [image(m.folder / "samples.png", f"{m.model}, seed {m.seed}") for m in drawn]
    body = [
        f"<header><h1>{text(title)}</h1><p>{text(about)}</p></header>",
        section("Figures", f'<div class="wide tight" tabindex=0>{_html(figures(known), 0)}</div>{_notes(members)}'),
        section("Quality and time", _charts(known)),
        section("What the lecture says", _html(claims(known), 2)),
        section("Samples", images(pictures, "side")),
        section("Machine", _machine(members)),
    ]
    write_text(path, page(title, body))
    write_text(path.with_suffix(".md"), markdown(known))


def _by_model(members: Sequence[Member]) -> dict[str, list[Member]]:
    found: dict[str, list[Member]] = {}
    for member in members:
        found.setdefault(member.model, []).append(member)
    return found


def figures(members: Sequence[Member]) -> list[list[str]]:
    """The table: its head, trivial models, and a row for each model: of several seeds the mean, and all in brackets."""
    baselines = {column: _baselines(members, column) for column in COLUMNS}
    rows = [["model", "family", *COLUMNS.values(), "images seen"]]
    for name in dict.fromkeys(name for known in baselines.values() for name in known):
        known = [baselines[column].get(name) for column in COLUMNS]
        rows.append([name, "", *("" if value is None else f"{value:.3g}" for value in known), ""])
    for model, own in _by_model(members).items():
        seen = f"{sum(m.results['images'] for m in own) / len(own):,.0f}"
        rows.append([model, own[0].family, *(_cell(own, column) for column in COLUMNS), seen])
    return rows


def claims(members: Sequence[Member]) -> list[list[str]]:
    """What is found of the lecture's claims, by slide, below a head."""
    found = sorted(findings(members), key=lambda f: f.claim.slide)
    rows = [[str(f.claim.slide), f.claim.text, f.verdict, f.claim.words, f.figures] for f in found]
    return [["slide", "it says", "found", "rule", "figures"], *rows]


def markdown(members: Sequence[Member]) -> str:
    """Both tables, for a page of docs."""
    parts = []
    for head, *rows in (figures(members), claims(members)):
        lines = [head, ["---"] * len(head), *rows]
        parts.append("".join(f"| {' | '.join(row)} |\n" for row in lines))
    return "\n".join(parts)


def _html(rows: Sequence[Sequence[str]], bold: int) -> str:
    """A table with a head; the names in one column stand out."""
    head = "".join(f"<th>{text(cell)}</th>" for cell in rows[0])
    lines = [
        "".join(f"<th>{text(c)}</th>" if i == bold else f"<td>{text(c)}</td>" for i, c in enumerate(row))
        for row in rows[1:]
    ]
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _baselines(members: Sequence[Member], column: str) -> dict[str, float]:
    """Of the first that has this metric."""
    return next((metric["baselines"] for m in members if (metric := m.metric(column))), {})


def _cell(own: Sequence[Member], column: str) -> str:
    values = [m.value(column) for m in own if m.metric(column)]
    if not values:
        return "-"
    sign = SIGNS[own[0].results["evidence"]] if column == BITS else ""
    kind = ".3f" if column == BITS else ".3g"
    every = f" ({', '.join(f'{v:{kind}}' for v in values)})" if len(values) > 1 else ""
    return f"{sign}{sum(values) / len(values):{kind}}{every}"


def _notes(members: Sequence[Member]) -> str:
    missing = [f"{m.model}, seed {m.seed}, is missing: {m.results['failed']}" for m in members if "failed" in m.results]
    said = [
        f"{m.model}, seed {m.seed}: {message['text']}" for m in members for message in m.results.get("messages", [])
    ]
    return f"<ul>{''.join(f'<li>{text(note)}</li>' for note in (*NOTES, *missing, *said))}</ul>"


def _charts(members: Sequence[Member]) -> str:
    """FD* over the time of a sample, and over that of a training image: a point for each run."""
    parts = []
    with tempfile.TemporaryDirectory() as folder:
        for column, label in (("a sample", "ms a sample"), ("a training image", "ms a training image")):
            shown = [m for m in members if m.metric("FD*") and m.metric(column)]
            if shown:
                path = Path(folder) / "chart.png"
                save_chart(path, _scatter(shown, column, label))
                parts.append(image(path, f"FD* over {label}: down and to the left is better"))
    return images(parts, "large")


def _scatter(members: Sequence[Member], column: str, label: str) -> Chart:
    from matplotlib.ticker import LogLocator, NullFormatter

    def draw(axes: Any) -> None:
        for model, own in _by_model(members).items():
            x, y = [m.value(column) for m in own], [m.value("FD*") for m in own]
            axes.scatter(x, y, label=model, s=50)
        known = (members[0].metric("FD*") or {}).get("baselines", {})
        for name in ("PCA-Gaussian", "real images"):
            if name in known:
                axes.axhline(known[name], color="0.6", linestyle=":")
                axes.annotate(name, (1, known[name]), xycoords=("axes fraction", "data"), ha="right", va="bottom")
        axes.set(xscale="log", yscale="log", xlabel=f"{label}, CPU time", ylabel="FD*")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))  # beside the points

    return Chart(draw, f"Quality and time: FD* over {label}")


def _machine(members: Sequence[Member]) -> str:
    made = read_toml(members[0].folder / "environment.toml")
    said = [f"{name} {made[name]}" for name in ("processor", "kernels", "tinygen", "commit") if name in made]
    return f"<p>{text(', '.join(said))}</p>"
