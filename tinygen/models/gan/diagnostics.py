"""How a GAN does, in words: what its users ask first, "what should the losses look like, and is mine failing?"

A GAN's losses alone say little: they are those of a game, and neither falls when all is well. What says more are D's
values on real and generated images, how steep D is, whether G gets a gradient at all, and how much the samples differ.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygen import Tensor, nn, parallel
from tinygen.data import Dataset
from tinygen.metrics.features import class_names, feature_net
from tinygen.models.gan.objectives import Objective

LOOK = 500  # steps between two looks at the samples' classes, and how many samples are looked at
WON = 0.1  # of the loss of chance: what a discriminator has left that tells nearly all images apart
BLIND = 0.98  # of it: from where a discriminator does no better
BEYOND = 0.9  # of the generated images: how many may lie beyond EBGAN's margin
GUESS = 0.9  # of log(classes): the loss of a head that can only guess
ALIKE = 0.3  # spread of the samples over that of the data
FLAT = 0.02  # norm of the generator's gradient
STEEP = 0.3  # how far from 1 the norm of D's gradient may be that a penalty draws to 1
FAR = 1e4  # values of D that no training comes to which goes well


def diagnosis(parts: dict[str, float], objective: Objective, missing: int = 0, classes: int = 0) -> list[str]:
    """The faults of a training, the worst first; empty if nothing is.

    Args:
        parts: the numbers of a step (`AdversarialPair.training_step`), best averaged over some.
        missing, classes: how many classes don't occur among samples, of how many.
    """
    real, fake, lost = parts["real"], parts["fake"], loss_of_chance(parts, objective)
    found = []
    if max(abs(real), abs(fake)) > FAR:
        found.append(f"diverging: D's values have reached {max(abs(real), abs(fake)):.0e}; lower --lr")
    if lost < WON:
        if parts["g_grad"] < FLAT:
            why = "the generator gets no gradient any more; --objective non-saturating gives it one"
        else:
            why = "it tells nearly all images apart; give it a smaller --width, or --objective wgan-gp if it has that"
        found.append(f"the discriminator has won: {why}")
    if lost > BLIND:
        found.append("the discriminator is blind: it does no better than chance; try more --critic-steps")
    if "gradient_norm" in parts and abs(parts["gradient_norm"] - 1) > STEEP:
        norm = parts["gradient_norm"]
        found.append(f"the critic's gradient norm is {norm:.2f} instead of 1: its estimate is no distance yet")
    if parts.get("k", 0.0) >= 1:
        found.append("BEGAN's k is at its limit 1: the generator fools the autoencoder; lower --lr")
    if parts.get("beyond", 0.0) > BEYOND:
        found.append(f"EBGAN's margin is passed: D learns nothing from {parts['beyond']:.0%} of the images; lower --lr")
    if parts.get("d_class", 0.0) > 2 * GUESS * math.log(max(objective.heads, 1)):  # of real and of generated images
        found.append("the images don't show their class: D's head can only guess it; lower --lr")
    if missing:
        found.append(f"mode collapse: {missing} of {classes} classes missing")
    elif parts["spread"] < ALIKE:
        found.append(f"mode collapse: the samples differ {parts['spread']:.0%} as much as the data")
    return found


def loss_of_chance(parts: dict[str, float], objective: Objective) -> float:
    """How D's loss stands between its best, 0, and that of a D without a clue, 1; .5 where there are no such losses."""
    if "mass" in parts:  # of a softmax: half of it on the real images, or all
        return 2 * (1 - parts["mass"])
    if objective.chance is None:
        return 0.5
    return (parts["d_loss"] - objective.best) / (objective.chance - objective.best)


def rare_classes(model: Any, train: Dataset, seed: int) -> tuple[int, int]:
    """How many classes are rare (below a tenth of an equal share) among new samples, and of how many."""
    classes = len(class_names(train))
    _, found = feature_net(train).of(model.sample(LOOK, np.random.default_rng(seed)))
    return int((np.bincount(found, minlength=classes) < LOOK / 10 / classes).sum()), classes


def gradient_norm(player: nn.Module) -> float:
    """The norm of all gradients of a player's parameters together."""
    grads = (None if p.grad is None else p.grad.numpy() for p in player.parameters())
    squares = [0.0 if g is None else float(np.square(g, dtype=np.float64).sum()) for g in grads]
    return math.sqrt(sum(parallel.from_owners(squares)))


def spread(fake: Tensor, x: Tensor) -> float:
    """How much generated images differ, over how much real ones do: of standard deviations over the batch (N, ...)."""
    variances = (float(parallel.moments(images.numpy(), (0,))[1].mean()) for images in (fake, x))
    return math.sqrt(next(variances) / max(next(variances), 1e-12))
