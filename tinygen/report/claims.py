"""What the lecture says of the families beside each other (slides 98, 99, 139, 141, 142), and what the figures say.

A claim is decided by a rule, which compares figures of the table, of each seed by itself: it is seen if the rule holds
for every seed. Without the figures that the rule needs, it can't be measured here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tinygen.models.model import SIGNS, Decodes, Encodes
from tinygen.models.registry import model_class

SEEN, NOT_SEEN, NOT_MEASURABLE = "seen", "not seen", "not measurable here"
SLOW, FAST, BLURRED = 10.0, 0.1, 0.5  # times as long; of the time; of the sharpness
BITS = "bits/dim"
NAMES = {"autoregressive": "autoregressive", "vae": "VAE", "gan": "GAN"}  # of the families that the slides speak of


class Member(NamedTuple):
    """A model that was trained with a seed: its run's folder, and what stands in its results.json."""

    model: str
    seed: int
    folder: Path
    results: dict[str, Any]

    @property
    def family(self) -> str:
        """The folder of tinygen.models that it is in."""
        return model_class(self.model).__module__.split(".")[2]

    def metric(self, name: str) -> dict[str, Any] | None:
        """The first metric whose name begins so, or whose unit this is."""
        metrics = self.results.get("metrics", [])
        return next((m for m in metrics if m["unit"] == name or m["name"].split(" (")[0] == name), None)

    def value(self, name: str) -> float:
        """Of a metric that it has."""
        return float((self.metric(name) or {})["value"])


class Seed(dict[str, Member]):
    """Of one seed, the first member of each family, by the family's name; and all `members` with figures.

    An autoencoder is no member that speaks for VAEs: it says nothing of p(x).
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = [member for member in members if member.results.get("metrics")]
        speak = [m for m in self.members if m.family != "vae" or m.results["evidence"] != "none"]
        super().__init__((member.family, member) for member in reversed(speak))


Rule = Callable[[Seed], tuple[bool, str]]  # whether it holds, and the figures in words


class Claim(NamedTuple):
    """What a slide says; the rule in words; the figures that it needs, as (family, metric); and the rule.

    rule: None: no figure of the table can decide it, and `words` say why.
    """

    slide: int
    text: str
    words: str
    needs: Sequence[tuple[str, str]] = ()
    rule: Rule | None = None


class Finding(NamedTuple):
    """A claim's verdict, and the figures that decided it."""

    claim: Claim
    verdict: str
    figures: str


def findings(members: Sequence[Member]) -> list[Finding]:
    """What is found of all claims."""
    seeds = [Seed([m for m in members if m.seed == seed]) for seed in dict.fromkeys(m.seed for m in members)]
    return [_decided(claim, seeds) for claim in CLAIMS] + [_steadiness(members, seeds)]


def _decided(claim: Claim, seeds: Sequence[Seed]) -> Finding:
    if claim.rule is None:
        return Finding(claim, NOT_MEASURABLE, "")
    able = [seed for seed in seeds if not _missing(claim, seed)]
    if not able:
        return Finding(claim, NOT_MEASURABLE, _missing(claim, seeds[0]) if seeds else "nothing is measured yet")
    found = [claim.rule(seed) for seed in able]
    held = sum(holds for holds, _ in found)
    verdict = SEEN if held == len(found) else NOT_SEEN
    some = f" (but with {held} of {len(found)} seeds)" if 0 < held < len(found) else ""
    return Finding(claim, verdict + some, "; ".join(dict.fromkeys(figures for _, figures in found)))


def _missing(claim: Claim, seed: Seed) -> str:
    """Which figure of a seed there isn't, or nothing."""
    for family, metric in claim.needs:
        if family not in seed:
            return f"no {NAMES[family]} was measured"
        if metric and seed[family].metric(metric) is None:
            return f"no {metric} of the {NAMES[family]}"
    return ""


# --------------------------------------------------------------------------------------------------------------- rules


def evidence(family: str, *kinds: str) -> Rule:
    """What the family's member says of p(x) is one of these kinds."""
    return lambda seed: ((found := seed[family].results["evidence"]) in kinds and (True, found)) or (False, found)


def codes(family: str, wanted: bool) -> Rule:
    """Whether the class has codes of images."""

    def rule(seed: Seed) -> tuple[bool, str]:
        model = model_class(seed[family].model)
        has = issubclass(model, (Encodes, Decodes))
        return has == wanted, f"{model.__name__} {'has' if has else 'has no'} encode() or decode()"

    return rule


def no_inference(seed: Seed) -> tuple[bool, str]:
    """The GAN's class says nothing of p(x), and has no codes of images."""
    model = model_class(seed["gan"].model)
    encodes = issubclass(model, Encodes)
    return model.evidence == "none" and not encodes, (
        f"{model.__name__}: p(x) {model.evidence}, p(z given x) {'by encode()' if encodes else 'none'}"
    )


def least(family: str, metric: str, among: Sequence[str] = ()) -> Rule:
    """The family's member has the least of a metric, of all members or of these families' alone."""

    def rule(seed: Seed) -> tuple[bool, str]:
        members = [seed[name] for name in among] or seed.members
        found = {m.model: m.value(metric) for m in members if m.metric(metric)}
        return min(found, key=lambda model: found[model]) == seed[family].model, _listed(found, metric)

    return rule


def times(one: str, other: str, metric: str, factor: float) -> Rule:
    """One family's figure is at least the factor times the other's; at most, for a factor below 1."""

    def rule(seed: Seed) -> tuple[bool, str]:
        a, b = (seed[family].value(metric) for family in (one, other))
        found = {seed[family].model: seed[family].value(metric) for family in (one, other)}
        return (a >= factor * b if factor >= 1 else a <= factor * b), _listed(found, metric)

    return rule


def blurry(seed: Seed) -> tuple[bool, str]:
    """The VAE's samples have less than half of the sharpness of real images, and less than the others of the slides."""
    found = {seed[f].model: seed[f].value("sharpness") for f in NAMES if f in seed}
    own = seed["vae"].value("sharpness")
    return own < BLURRED and own == min(found.values()), _listed(found, "sharpness, real images 1")


def better_than_a_gaussian(*of: str) -> Rule:
    """The samples' FD* is below that of a Gaussian of the pixels."""

    def rule(seed: Seed) -> tuple[bool, str]:
        metrics = [seed[family].metric("FD*") or {} for family in of]
        known = float(metrics[0]["baselines"]["PCA-Gaussian"])
        found = {seed[family].model: seed[family].value("FD*") for family in of}
        return max(found.values()) < known, _listed(found | {"PCA-Gaussian": known}, "FD*")

    return rule


def maximized(family: str, kind: str) -> Rule:
    """What the family's member says of p(x) is of this kind, and better than what independent pixels reach."""

    def rule(seed: Seed) -> tuple[bool, str]:
        member, metric = seed[family], seed[family].metric(BITS) or {}
        known, found = metric["baselines"]["independent pixels"], member.results["evidence"]
        figures = _listed({member.model: metric["value"], "independent pixels": known}, BITS)
        return found == kind and metric["value"] < known, f"{found}: {figures}"

    return rule


def looser(seed: Seed) -> tuple[bool, str]:
    """The VAE's bound is worse than the autoregressive model's exact figure."""
    a, b = seed["vae"], seed["autoregressive"]
    shown = ", ".join(f"{m.model} {SIGNS[m.results['evidence']]}{m.value(BITS):.3f}" for m in (b, a))
    return a.value(BITS) > b.value(BITS), f"{BITS}: {shown}"


def rich(seed: Seed) -> tuple[bool, str]:
    """The VAE's codes tell more classes than raw pixels do."""
    metric = seed["vae"].metric("linear probe") or {}
    known = metric["baselines"]["raw pixels"]
    return metric["value"] > known, _listed(
        {seed["vae"].model: metric["value"], "raw pixels": known}, "told rightly, %"
    )


def _listed(found: Mapping[str, float], what: str) -> str:
    return f"{what}: " + ", ".join(f"{name} {value:.3g}" for name, value in found.items())


# -------------------------------------------------------------------------------------------------------------- claims

AR, VAE, GAN = "autoregressive", "vae", "gan"
CLAIMS = (
    Claim(99, "Autoregressive: directly maximizes p(data)", "its likelihood is exact, and better than that of "
          "independent pixels", [(AR, BITS)], maximized(AR, "exact")),
    Claim(99, "Autoregressive: high-quality generated images", "its FD* is below that of a Gaussian of the pixels, and "
          "below the VAE's", [(AR, "FD*"), (VAE, "FD*")],
          lambda seed: _both(better_than_a_gaussian(AR)(seed), least(AR, "FD*", (AR, VAE))(seed))),
    Claim(99, "Autoregressive: slow to generate images", f"a sample, drawn alone, takes at least {SLOW:g} times as "
          "long as the VAE's", [(AR, "a sample, drawn alone"), (VAE, "a sample, drawn alone")],
          times(AR, VAE, "a sample, drawn alone", SLOW)),
    Claim(99, "Autoregressive: no explicit latent codes", "its class has neither encode() nor decode()", [(AR, "")],
          codes(AR, False)),
    Claim(98, "Variational: not as good evaluation as PixelRNN or PixelCNN", "its bound is worse than the "
          "autoregressive model's exact figure", [(AR, BITS), (VAE, BITS)], looser),
    Claim(98, "Variational: samples blurrier and of lower quality than GANs'", "they have less sharpness and a larger "
          "FD*", [(VAE, "sharpness"), (VAE, "FD*"), (GAN, "sharpness"), (GAN, "FD*")],
          lambda seed: _both(least(VAE, "sharpness", (VAE, GAN))(seed), least(GAN, "FD*", (VAE, GAN))(seed))),
    Claim(99, "Variational: maximizes a lower bound of p(data)", "what it says is a bound, and better than that of "
          "independent pixels", [(VAE, BITS)], maximized(VAE, "bound")),
    Claim(99, "Variational: generated images often blurry", f"the means of p(x given z) have less than {BLURRED:g} of "
          "real images' sharpness, and less than the samples of the others that the slides speak of",
          [(VAE, "sharpness"), (AR, "sharpness")], blurry),
    Claim(99, "Variational: very fast to generate images", f"a sample takes at most {FAST:g} of the autoregressive "
          "model's time", [(AR, "a sample"), (VAE, "a sample")], times(VAE, AR, "a sample", FAST)),
    Claim(99, "Variational: learns rich latent codes", "by few labels a linear classifier tells more of the "
          "classes from its codes than from raw pixels, which are many more numbers", [(VAE, "linear probe")], rich),
    Claim(139, "GANs: don't work with an explicit density function", "its class says nothing of p(x)", [(GAN, "")],
          evidence(GAN, "none")),
    Claim(139, "GANs: learn to generate from the training distribution", "its FD* is below that of a Gaussian of the "
          "pixels", [(GAN, "FD*")], better_than_a_gaussian(GAN)),
    Claim(139, "GANs: beautiful, state-of-the-art samples", "its FD* is the least of all in the table",
          [(AR, "FD*"), (VAE, "FD*"), (GAN, "FD*")], least(GAN, "FD*")),
    Claim(139, "GANs: can't solve inference queries such as p(x), p(z given x)", "its class says nothing of p(x) and "
          "has no encode()", [(GAN, "")], no_inference),
    Claim(141, "Autoregressive models, VAEs and GANs are ways to generate images", "each one's FD* is below that of a "
          "Gaussian of the pixels", [(AR, "FD*"), (VAE, "FD*"), (GAN, "FD*")], better_than_a_gaussian(AR, VAE, GAN)),
    Claim(142, "a picture, which sums up", "the slide's text is its title alone"),
)  # fmt: skip
UNSTABLE = Claim(139, "GANs: trickier, more unstable to train", "from seed to seed its FD* differs by a larger factor "
                 "than that of any other in the table: with few seeds, a weak sign")  # fmt: skip


def _both(one: tuple[bool, str], other: tuple[bool, str]) -> tuple[bool, str]:
    return one[0] and other[0], "; ".join(dict.fromkeys((one[1], other[1])))


def _steadiness(members: Sequence[Member], seeds: Sequence[Seed]) -> Finding:
    """By the factor between the largest FD* of a model over seeds and its least."""
    values: dict[str, list[float]] = {}
    for member in members:
        if member.metric("FD*"):
            values.setdefault(member.model, []).append(member.value("FD*"))
    factors = {model: max(found) / max(min(found), 1e-12) for model, found in values.items() if len(found) > 1}
    gan = next((seed["gan"].model for seed in seeds if "gan" in seed), None)
    if gan not in factors or len(factors) < 2:
        return Finding(UNSTABLE, NOT_MEASURABLE, "it takes FD* of two seeds or more, of the GAN and of others")
    worst = max(factors, key=lambda model: factors[model])
    return Finding(UNSTABLE, SEEN if worst == gan else NOT_SEEN, _listed(factors, "largest FD* over the least"))
