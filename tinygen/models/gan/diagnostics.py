"""How a GAN is doing, in words: what its users ask first, "what should the losses look like, and is mine failing?"

A GAN's losses alone say little: they are those of a game, and neither falls when all is well. What says more are D's
values on real and generated images, how steep D is, whether G gets a gradient at all, and how much the samples differ.
"""

from __future__ import annotations

from tinygen.models.gan.objectives import Variant

WON = 0.1  # of d_loss at chance: what a discriminator has left that tells nearly all images apart
BLIND = 0.98
ALIKE = 0.3  # spread of the samples over that of the data
FLAT = 0.02  # norm of the generator's gradient
STEEP = 0.3  # how far from 1 the slope may be that a penalty draws to 1
FAR = 1e4  # values of D that no healthy game comes to


def diagnosis(parts: dict[str, float], variant: Variant, missing: int = 0, classes: int = 0) -> list[str]:
    """What is wrong with a game, the worst first; empty if nothing is.

    Args:
        parts: the numbers of a step (`Game.step`), best averaged over some.
        missing, classes: how many classes don't occur among samples, of how many.
    """
    real, fake, chance = parts["real"], parts["fake"], variant.chance
    found = []
    if max(abs(real), abs(fake)) > FAR:
        found.append(f"diverging: D's values have reached {max(abs(real), abs(fake)):.0e}; lower --lr")
    if chance and parts["d_loss"] < WON * chance:
        if parts["g_grad"] < FLAT:
            why = "the generator gets no gradient any more; --variant non-saturating gives it one"
        else:
            why = "it tells nearly all images apart; give it a smaller --width or a penalty (--variant wgan-gp)"
        found.append(f"the discriminator has won: {why}")
    if chance and parts["d_loss"] > BLIND * chance:
        found.append("the discriminator is blind: it does no better than chance; try more --critic-steps")
    if "slope" in parts and abs(parts["slope"] - 1) > STEEP:
        found.append(f"the critic's slope is {parts['slope']:.2f} instead of 1: its estimate is no distance yet")
    if parts.get("k", 0.0) >= 1:
        found.append("BEGAN's k is at its limit 1: the generator fools the autoencoder; lower --lr")
    if missing:
        found.append(f"mode collapse: {missing} of {classes} classes missing")
    elif parts["spread"] < ALIKE:
        found.append(f"mode collapse: the samples differ {parts['spread']:.0%} as much as the data")
    return found
