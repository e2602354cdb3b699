"""The game of a GAN with captions: algorithm 1 of Reed et al. (2016)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tinygen import Tensor, cat, nn, tensor
from tinygen.models.condition import Text
from tinygen.models.gan.diagnostics import spread
from tinygen.models.gan.objectives import Verdict, mean
from tinygen.models.gan.pair import AdversarialPair, first_then
from tinygen.models.model import Step
from tinygen.nn import functional as F


def matching_aware(real: Tensor, wrong: Tensor, fake: Tensor) -> Tensor:
    """GAN-CLS, 0-d, from the logits of D(x, t), D(x, wrong) and D(G(z, t), t), (N,) each."""
    return F.softplus(-real).mean() + (F.softplus(wrong).mean() + F.softplus(fake).mean()) / 2


class Reader(nn.Module):
    """D: what a network sees in images, f (N, features), with vectors of captions, phi (N, size), to D(x, t), (N,).

    The logit is w lrelu(f) + b + (V phi) f / sqrt(features).
    """

    def __init__(self, encoder: nn.Module, net: nn.Module, features: int, size: int, rng: np.random.Generator) -> None:
        self.encoder, self.net = encoder, net
        self.alone, self.together = nn.Linear(features, 1, rng=rng), nn.Linear(size, features, rng=rng)

    def see(self, x: Tensor) -> Tensor:
        return self.net(x).reshape(len(x), -1)

    def forward(self, seen: Tensor, vectors: Tensor) -> Tensor:
        fit = (self.together(vectors) * seen).sum(1) / math.sqrt(seen.shape[1])
        return self.alone(F.leaky_relu(seen, 0.2)).reshape(len(seen)) + fit


class TextPair(AdversarialPair):
    """G and D with captions for classes; `edges` are those of `Captions.edges`, taken of the training set."""

    discriminator: Reader
    condition: Text
    edges: Tensor
    interpolate = True

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.register_buffer("edges", tensor(np.zeros((self.condition.captions.sizes[0], 3))))

    def vectors(self, rows: np.ndarray) -> Tensor:
        """phi of captions, (N, size)."""
        return self.discriminator.encoder(self.condition.check(rows, len(rows), "TextGAN"))

    def draw(self, z: np.ndarray, vectors: Tensor) -> Tensor:
        """G(z, t) of the captions' vectors; G's gradient ends there."""
        noise = vectors.new_tensor(z)
        return self.generator(cat(noise, vectors.detach(), dim=1).reshape(len(z), -1, 1, 1))

    def generate(self, z: np.ndarray, labels: np.ndarray | None = None) -> Tensor:
        return self.draw(z, self.vectors(np.asarray(labels)))

    def judge(self, x: Tensor, labels: np.ndarray | None = None, z: np.ndarray | None = None) -> Verdict:
        return Verdict(self.discriminator(self.discriminator.see(x), self.vectors(np.asarray(labels))))

    def training_step(self, step: Step, scale: Callable[[np.ndarray], Tensor]) -> dict[str, float]:
        """Algorithm 1 of Reed et al., once through its loop."""
        captions, rng = self.condition.captions, step.rng
        x, said = self.described(step, scale)
        t = captions.numbers(captions.write(said, rng))  # matching text
        wrong = captions.numbers(captions.write(captions.others(said, rng), rng))  # mis-matching text
        z, between = self.codes(len(said), rng), self.codes(len(said), rng)
        fake, verdicts = self.generate(z, t), dict[str, Verdict]()

        def discriminator() -> dict[str, Tensor]:
            seen, phi = self.discriminator.see(x), self.vectors(t)
            real, mistaken = self.discriminator(seen, phi), self.discriminator(seen, self.vectors(wrong))
            false = self.discriminator(self.discriminator.see(fake.detach()), phi)
            verdicts.update(real=Verdict(real), wrong=Verdict(mistaken), fake=Verdict(false))
            return {"d_loss": matching_aware(real, mistaken, false)}

        parts = step.minimize(discriminator, "discriminator")
        made = first_then(fake, lambda: self.generate(z, t))
        parts |= step.minimize(lambda: self.generator_loss(made(), t, between), "generator")
        drawn = captions.describe(fake.numpy() / 2 + 0.5, said[:, 0], self.edges.numpy())
        asked = (drawn[:, 1:] == said[:, 1:]).all(axis=1).mean()
        shown = {"wrong": mean(verdicts["wrong"].value.sigmoid()), "asked": float(asked)}
        return parts | self.shown(verdicts) | shown | {"spread": spread(fake, x)}

    def described(self, step: Step, scale: Callable[[np.ndarray], Tensor]) -> tuple[Tensor, np.ndarray]:
        """The next images, as the players see them, without those held out; and their attributes."""
        captions, data = self.condition.captions, step.dataset
        if step.step == 0:
            edges = captions.edges(data.images, data.labels, data.levels)
            self.edges.write()[...] = self.edges.new_tensor(edges)._array
        while True:
            batch = step.batch()
            said = captions.describe(batch.images / (data.levels - 1), batch.labels, self.edges.numpy())
            if (kept := ~captions.held_out(said)).any():
                return scale(batch.images[kept]), said[kept]

    def generator_loss(self, fake: Tensor, t: np.ndarray, z: np.ndarray) -> dict[str, Tensor]:
        """G's loss, of images of captions t, and, from other noise z, of texts between these and their neighbors."""
        parts = {"g_loss": F.softplus(-self.judge(fake, t).value).mean()}
        if self.interpolate:
            phi = self.vectors(t).detach()
            between = (phi + cat(phi[1:], phi[:1])) / 2
            seen = self.discriminator.see(self.draw(z, between))
            parts["g_between"] = F.softplus(-self.discriminator(seen, between)).mean()
        return parts
