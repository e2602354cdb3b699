"""M2: a VAE whose code has a class, told for few images, summed over for all others (semi-supervised learning).

    p(x) = sum over y of p(y) times the integral of p(z) p(x | y, z) over z,     q(y, z | x) = q(y | x) q(z | x, y)

    labeled     -log p(x, y) <= L(x, y) = -E log p(x | y, z) + KL(q(z | x, y), p(z)) - log p(y)    equation 6
    unlabeled   -log p(x)    <= U(x)    = sum over y of q(y | x) L(x, y) - H(q(y | x))             equation 7
    training    U, of all images, + L - alpha log q(y | x), of the labeled ones, each a mean over a batch

Encoder and classifier share their layers; what y adds to mean and log variance of z is a row of a table.

Source: Kingma, Rezende, Mohamed & Welling, Semi-supervised learning with deep generative models (2014), section 3.
Our own: there L counts as much as there are labels.
"""

from __future__ import annotations

import math

import numpy as np

from tinygen import Tensor, cat, exp, nn
from tinygen.models import likelihoods
from tinygen.models.condition import Condition
from tinygen.models.family import Batch
from tinygen.models.model import Step
from tinygen.models.networks import encoders
from tinygen.models.semisupervised import told
from tinygen.models.vae.base import Draws, LatentVariableModel
from tinygen.models.vae.family import M2Family
from tinygen.models.vae.normal import gaussian_kl, log_normal, log_prior
from tinygen.nn import functional as F


class M2(LatentVariableModel):
    """A VAE of codes z and classes y, told only so many labels.

    The other arguments are those of all VAEs, see `LatentVariableModel`.

    Args:
        labels: how many training images' labels it is told.
        classes: how many classes there are.
        alpha: how much -log q(y | x) of the labeled images counts.
        draw_of_labels: the seed by which the images are drawn whose labels are told.

    Raises ValueError for fewer than two classes, too.
    """

    family = M2Family()

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, network: encoders.Kind = "mlp", latent: int = 20,
        hidden: int | None = None, likelihood: likelihoods.Kind = "logistic", sigma: float | None = None,
        labels: int = 100, classes: int = 10, alpha: float = 100.0, draw_of_labels: int = 0, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        if classes < 2:
            raise ValueError(f"classes must be at least 2, got {classes}")
        self.classes = classes
        super().__init__(image_shape, levels, network=network, latent=latent, hidden=hidden, likelihood=likelihood,
                         sigma=sigma, rng=rng)  # fmt: skip
        self.condition = Condition(classes)
        self.labels, self.alpha, self.draw_of_labels = labels, alpha, draw_of_labels
        self.network, self.shape, self.hidden = network, image_shape, hidden
        self.table = nn.Linear(classes, 2 * latent, bias=False, rng=rng)

    def sizes(self, latent: int) -> tuple[int, int]:
        return latent + self.classes, self.classes + 2 * latent

    def log_q(self, h: Tensor) -> Tensor:
        """log q(y | x), (N, classes)."""
        return F.log_softmax(h[:, : self.classes], 1)

    def code(self, h: Tensor, y: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """q(z | x, y) of y (S, N, classes): the mean, the log variance, and a draw of z, (S, N, latent) each."""
        both = h[:, self.classes :] + self.table(y)
        mean, log_var = both[..., : self.latent], both[..., self.latent :]
        return mean, log_var, mean + exp(log_var / 2) * self.normal(rng, *mean.shape)

    def draw(self, x: np.ndarray, samples: int, rng: np.random.Generator) -> Draws:
        """So many draws of z of every class, each as likely as q(y | x) says: (samples * classes, N)."""
        h, y = self.encoded(x), self.tensor(np.tile(np.eye(self.classes)[:, None], (samples, len(x), 1)))
        mean, log_var, z = self.code(h, y, rng)
        log_q = cat(*[self.log_q(h).permute(1, 0)] * samples)
        of_class = log_q + math.log(self.classes)  # log q(y | x) - log p(y)
        log_ratio = of_class + log_normal(z, mean, log_var) - log_prior(z)
        kl = (exp(log_q) * (of_class + gaussian_kl(mean, log_var).sum(2))).sum(0) / samples
        return Draws(self.log_likelihood(x, cat(z, y, dim=2)), log_ratio, log_q - math.log(samples), kl)

    def negative_elbo(self, x: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        draws = self.draw(x, 1, rng)
        return draws.reconstruction(), draws.kl  # together U(x)

    def training_step(self, step: Step) -> dict[str, float]:
        batch, few = step.batch(), told(step, self.labels, self.draw_of_labels)
        return step.minimize(lambda: self.loss(batch, step.rng) | self.labeled_loss(few, step.rng))

    def labeled_loss(self, few: Batch, rng: np.random.Generator) -> dict[str, Tensor]:
        """{"labeled": L(x, y), "class": alpha times -log q(y | x)}, means over labeled images."""
        h, labels = self.encoded(few.images), np.asarray(self.condition.check(few.labels, len(few.images), "M2"))
        y = self.tensor(self.condition.one_hot(labels)[None])
        mean, log_var, z = self.code(h, y, rng)
        bound = gaussian_kl(mean, log_var).sum(2) - self.log_likelihood(few.images, cat(z, y, dim=2))
        log_q = self.alpha * F.cross_entropy(h[:, : self.classes], labels)
        return {"labeled": bound.mean() + math.log(self.classes), "class": log_q}

    def middle(self, h: Tensor) -> Tensor:
        """The mean of z, and q(y | x) behind it."""
        q = exp(self.log_q(h))
        return cat((h[:, self.classes :] + self.table(q))[:, : self.latent], q, dim=1)

    def codes(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return self.given(rng.standard_normal((n, self.size)), rng.integers(0, self.classes, n))

    def given(self, z: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
        y = z[:, self.latent :] if labels is None else np.eye(self.classes)[self.condition.check(labels, len(z), "M2")]
        return np.concatenate([z[:, : self.latent], y], axis=1)

    def logits(self, images: np.ndarray) -> Tensor:
        """What says of images which class they have, (N, classes)."""
        return self.encoded(images)[:, : self.classes]

    def classifier(self, rng: np.random.Generator) -> nn.Module:
        """The network of q(y | x), anew."""
        return encoders.encoder(self.network, self.shape, self.classes, self.hidden, rng)
