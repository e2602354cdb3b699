"""The lecture's claims: each is decided by figures, seed by seed, and by what the classes say."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tinygen.report import families
from tinygen.report.claims import NOT_MEASURABLE, NOT_SEEN, SEEN, Member, findings


@dataclasses.dataclass
class Made:
    """A member with made-up figures."""

    model: str
    evidence: str
    bits: float | None
    distance: float = 10.0
    sharpness: float = 1.0
    probe: float = 75.0
    sample: float = 1.0
    alone: float = 1.0

    def member(self, seed: int, **changes: Any) -> Member:
        own = dataclasses.replace(self, **changes)
        numbers = [("FD* (features 0)", own.distance, "", {"PCA-Gaussian": 50.0, "real images": 1.0}),
                   ("precision", 0.5, "", {}), ("recall", 0.5, "", {}),
                   ("sharpness", own.sharpness, "of real images'", {}), ("a sample", own.sample, "ms", {}),
                   ("a sample, drawn alone", own.alone, "ms", {}), ("a training image", 1.0, "ms", {}),
                   ("memory", 100.0, "MiB", {}), ("linear probe", own.probe, "%", {"raw pixels": 70.0})]  # fmt: skip
        if own.bits is not None:
            numbers.insert(0, ("test", own.bits, "bits/dim", {"independent pixels": 4.0}))
        metrics = [
            {"name": n, "value": v, "unit": u, "error": None, "baselines": b, "lower_is_better": None}
            for n, v, u, b in numbers
        ]
        results = {"metrics": metrics, "evidence": own.evidence, "images": 100, "samples": 50}
        return Member(own.model, seed, Path("none"), results)


AS_THE_LECTURE_SAYS = {
    "autoregressive": Made("pixelcnn", "exact", 3.0, 10, sample=5.0, alone=50.0),
    "vae": Made("vae", "bound", 3.5, 20, 0.3, sample=0.1, alone=0.2),
    "gan": Made("dcgan", "none", None, 5, 0.9, sample=0.1, alone=0.2),
    "flow": Made("glow", "bound", 3.4, 30),
}
CHANGES = {  # what the figures would have to be for a claim, by its beginning, not to be seen
    "Autoregressive: directly": ("autoregressive", {"bits": 4.5}),
    "Autoregressive: high-quality": ("autoregressive", {"distance": 21.0}),
    "Autoregressive: slow": ("autoregressive", {"alone": 1.9}),
    "Autoregressive: no explicit": ("autoregressive", {"model": "pixelcnn"}),  # the class says so: never
    "Variational: not as good": ("vae", {"bits": 2.9}),
    "Variational: samples blurrier": ("vae", {"distance": 4.0}),
    "Variational: maximizes": ("vae", {"bits": 4.5}),
    "Variational: generated": ("vae", {"sharpness": 0.6}),
    "Variational: very fast": ("vae", {"sample": 0.6}),
    "Variational: learns": ("vae", {"probe": 69.0}),
    "GANs: don't work": ("gan", {"evidence": "bound"}),
    "GANs: learn": ("gan", {"distance": 60.0}),
    "GANs: beautiful": ("flow", {"distance": 4.0}),
    "GANs: can't solve": ("gan", {"model": "bigan"}),
    "Autoregressive models, VAEs and GANs": ("vae", {"distance": 60.0}),
}


def table(change: tuple[str, dict[str, Any]] | None = None, seeds: int = 2, changed: int = 2) -> list[Member]:
    """Two seeds; the change is made to the first `changed` of them."""
    return [
        made.member(seed, **(change[1] if change and name == change[0] and seed < changed else {}))
        for seed in range(seeds) for name, made in AS_THE_LECTURE_SAYS.items()
    ]  # fmt: skip


def verdict(members: list[Member], text: str) -> str:
    return next(f.verdict for f in findings(members) if f.claim.text.startswith(text))


@pytest.mark.parametrize("text", CHANGES)
def test_a_claim_is_seen_by_its_figures_and_not_by_others(text):
    assert verdict(table(), text) == SEEN
    if not text.startswith("Autoregressive: no"):
        assert verdict(table(CHANGES[text]), text) == NOT_SEEN
        assert verdict(table(CHANGES[text], changed=1), text) == f"{NOT_SEEN} (but with 1 of 2 seeds)"


def test_every_claim_that_a_figure_decides_is_among_them():
    decided = [f.claim.text for f in findings(table()) if f.claim.rule]
    assert len(decided) == len(CHANGES)
    assert all(any(text.startswith(start) for start in CHANGES) for text in decided)


def test_the_least_of_all_is_sought_among_all_of_a_family_too():
    diffusion = [Made(model, "bound", None, d).member(0) for model, d in (("diffusion", 30.0), ("flow-matching", 4.0))]
    assert verdict([*table(seeds=1), *diffusion], "GANs: beautiful") == NOT_SEEN
    assert verdict([*table(seeds=1), diffusion[0]], "GANs: beautiful") == SEEN


def test_an_autoencoder_does_not_speak_for_vaes():
    plain = Made("autoencoder", "none", None, 60.0, 2.0, 90.0).member(0)
    of_vaes = [f for f in findings([plain, *table(seeds=1)]) if f.claim.text.startswith("Variational")]
    assert len(of_vaes) == 6
    assert {f.verdict for f in of_vaes} == {SEEN}


def test_what_is_unsteady_takes_two_seeds():
    text = "GANs: trickier"
    assert verdict(table(seeds=1), text) == NOT_MEASURABLE
    assert verdict(table(("gan", {"distance": 15.0}), changed=1), text) == SEEN
    assert verdict(table(("vae", {"distance": 90.0}), changed=1), text) == NOT_SEEN


def test_without_its_figures_a_claim_cannot_be_measured():
    without = [m for m in table() if m.family != "gan"]
    found = next(f for f in findings(without) if f.claim.text.startswith("GANs: beautiful"))
    assert (found.verdict, found.figures) == (NOT_MEASURABLE, "no GAN was measured")
    assert {f.verdict for f in findings([])} == {NOT_MEASURABLE}


def test_the_page_has_every_model_every_claim_and_what_is_missing(monkeypatch, tmp_path):
    members = [*table(), Member("rbm", 0, Path("none"), {"failed": "it was too large"})]
    monkeypatch.setattr(families, "image", lambda path, name, about="": f"<img alt='{name}'>")
    families.write(tmp_path / families.PAGE, members)
    page = (tmp_path / families.PAGE).read_text()
    for member in table():
        assert f"<th>{member.model}</th>" in page
    assert "rbm, seed 0, is missing: it was too large" in page
    assert "<td>&lt;= 3.500 (3.500, 3.500)</td>" in page
    for finding in findings(table()):
        assert families.text(finding.claim.text) in page
    lines = (tmp_path / "families.md").read_text().splitlines()
    assert lines[0].startswith("| model | family | -log p(x), bits/dim | FD* |")
    assert any(line.startswith("| vae | vae | <= 3.500 (3.500, 3.500) | 20 (20, 20) |") for line in lines)
