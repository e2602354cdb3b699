"""RBM: an image and hidden units, in an energy that is low for images like those of the data (lecture slides 17 to 21).

    p(v) = exp(-F(v)) / Z,       d -log p(v) / d theta = d F(v) / d theta - E over v' from p of d F(v') / d theta

Z is a sum over all images, so the second term is estimated from states v' of a chain, which is run for k steps of Gibbs
sampling before each step of training: contrastive divergence, CD-k, starts it at the images of the batch; persistent
contrastive divergence, PCD, where it ended before. The gradient of

    loss = mean of F over the batch - mean of F over the chains, whose states count as constants

is that estimate, for W  -<v sigmoid(c + W'v)'> of the batch + the same of the chains. Its value is no likelihood, and
says nothing of how good the model is: `tinygen.models.energy.ais` does.

What is learned are the parameters of the centered energy, of units less their means:

    E(v, h) = R(v) - b'(v - mu) - c'(h - nu) - (v - mu)'W(h - nu),    mu, nu: the means of units of W = 0, at the start

It is the energy above with the biases b - W nu and c - W'mu, but for a constant: the same machines, by better
conditioned steps, which don't depend on what is called 0 and what 1.

Source: Hinton, Training products of experts by minimizing contrastive divergence (2002), sections 2 to 5; Tieleman,
Training restricted Boltzmann machines using approximations to the likelihood gradient (2008), section 2; the start:
Hinton, A practical guide to training restricted Boltzmann machines (2010), section 8; centering: Montavon & Mueller,
Deep Boltzmann machines and the centering trick (2012); Melchior, Fischer & Wiskott, How to center deep Boltzmann
machines (2016).
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from tinygen import Tensor, nn, no_grad, optim, parallel, tensor, where
from tinygen.data import Dataset
from tinygen.models.averages import Averaged
from tinygen.models.energy.chain import MarkovChain
from tinygen.models.energy.family import EnergyFamily
from tinygen.models.energy.machine import Bernoulli, Gaussian, Machine, Units
from tinygen.models.model import Evidence, Step
from tinygen.nn import init

DECAY = 0.999  # of the weights' average


class Weights(nn.Module):
    """What a machine learns: W (visible, hidden), b (visible,) and c (hidden,), of the centered energy."""

    visible_offset: Tensor  # mu
    hidden_offset: Tensor  # nu

    def __init__(self, visible: int, hidden: int, rng: np.random.Generator) -> None:
        self.weight = init.normal_(nn.Parameter(np.zeros((visible, hidden), np.float32)), 0, 0.01, generator=rng)
        self.visible_bias = nn.Parameter(np.zeros(visible, np.float32))
        self.hidden_bias = nn.Parameter(np.zeros(hidden, np.float32))
        self.register_buffer("visible_offset", tensor(np.zeros(visible, np.float32)))
        self.register_buffer("hidden_offset", tensor(np.zeros(hidden, np.float32)))

    def machine(self, units: Units) -> Machine:
        """The same energy, but for a constant, as `Machine` has it."""
        b = self.visible_bias - self.weight @ self.hidden_offset
        c = self.hidden_bias - self.visible_offset @ self.weight
        return Machine(self.weight, b, c, units)


class RBM(MarkovChain):
    """A restricted Boltzmann machine. Images of 2 levels are Bernoulli units; of more, Gaussian units of one variance.

    The chains' noise is in every step, so what is measured and sampled is the average of the weights (averages.py).

    Args:
        image_shape: (C, H, W).
        levels: values run from 0 to levels - 1.
        hidden: how many hidden units.
        chains: how many persistent chains (PCD); 0: chains restart at the images of every batch (CD).
        steps: k, how many steps of Gibbs sampling the chains take before each step of training.
        sigma: the Gaussian units' standard deviation, where -1 .. 1 are all levels.
        rng: draws the initial weights.
    """

    family = EnergyFamily()
    evidence: ClassVar[Evidence] = "estimate"
    lr: ClassVar[float] = 0.2
    batch_size: ClassVar[int] = 20
    chains: Tensor  # the states of the persistent chains, (chains, visible)

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, hidden: int = 256, chains: int = 100, steps: int = 1,
        sigma: float = 0.3, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        super().__init__(image_shape, levels)
        for name, value, least in (("hidden", hidden, 1), ("chains", chains, 0), ("steps", steps, 1)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        least_sigma = 2 / (levels - 1) / math.sqrt(2 * math.pi)  # a level's probability is 1 at most
        if levels > 2 and not sigma >= least_sigma:
            raise ValueError(f"sigma must be at least {least_sigma:.3g} for {levels} levels, got {sigma}")
        self.steps, self.sigma, self.persistent = steps, sigma, chains > 0
        self.weights = Averaged(Weights(self.visible, hidden, rng), DECAY)
        if self.persistent:
            self.register_buffer("chains", tensor(np.zeros((chains, self.visible), np.float32)))

    # -- the machine, and what images are to it

    @property
    def visible(self) -> int:
        """The number of visible units."""
        return self.dimensions

    @property
    def units(self) -> Units:
        """The kind of the visible units."""
        return Bernoulli() if self.levels == 2 else Gaussian()

    @property
    def weight(self) -> Tensor:
        """W, (visible, hidden); in evaluation the average over the last steps."""
        return self.weights.current.weight

    def machine(self) -> Machine:
        """The energy as `tinygen.models.energy.machine` has it; in evaluation that of the average of the weights."""
        return self.weights.current.machine(self.units)

    def rows(self, images: np.ndarray) -> np.ndarray:
        """The pixels' units, (N, dimensions): 0 and 1; or numbers of variance 1 about what the hidden units say."""
        rows = self.check_images(images).reshape(len(images), self.dimensions)
        return rows if self.levels == 2 else self.levels.scale(rows) / self.sigma

    def state(self, images: np.ndarray) -> Tensor:
        return self.tensor(self.rows(images))

    def images(self, state: Tensor) -> np.ndarray:
        values = state.numpy()[:, : self.dimensions]
        values = values.astype(np.uint8) if self.levels == 2 else self.levels.round(values * self.sigma)
        return values.reshape(len(values), *self.image_shape)

    def marginal_biases(self, images: np.ndarray) -> Tensor:
        """b_A, (visible,): independent visible units with these biases have the marginals of the images."""
        if self.levels > 2:
            return self.tensor(self.rows(images).mean(axis=0, dtype=np.float64))
        on = (self.rows(images).sum(axis=0) + 1) / (len(images) + 2)  # Laplace: none is 0 or 1
        return self.tensor(np.log(on) - np.log1p(-on))

    def log_unnormalized(self, images: np.ndarray) -> Tensor:
        """log p(x) + log Z = -F(v) of each image, in nats, (N,); of gray levels: the density times a level's width."""
        return self._log_cell - self.machine().free_energy(self.state(images))

    @property
    def _log_cell(self) -> float:
        """The logarithm of the volume that an image of gray levels stands for; 0 for Bernoulli units."""
        return self.dimensions * math.log(2 / (self.levels - 1) / self.sigma) if self.levels > 2 else 0.0

    # -- training

    def optimizers(self, lr: float) -> dict[str, optim.Optimizer]:
        """Plain gradient descent: the chains can't follow Adam's steps. Gaussian units take a tenth of the rate.

        Source: Hinton (2010), section 13.2.
        """
        return {"sgd": optim.SGD(self.parameters(), lr if self.levels == 2 else lr / 10)}

    def begin(self, data: Dataset, rng: np.random.Generator) -> None:
        """Before the first step: biases that alone give the data's marginals; those as offsets; chains."""
        biases = self.marginal_biases(data.images)
        both: tuple[Any, ...] = self.weights.network, self.weights.average
        for weights in both:
            weights.visible_bias.write()[...] = biases._array
            weights.visible_offset.write()[...] = self.units.mean(biases)._array
            weights.hidden_offset.write()[...] = 0.5  # hidden units whose input is 0
        if self.persistent:
            self.chains.write()[...] = self.start(len(self.chains), rng)._array

    def training_step(self, step: Step) -> dict[str, float]:
        """A step of the loss: {"images": F of the batch, "chains": -F of the chains}, means."""
        if step.step == 0 and not self.weights.current.visible_bias.numpy().any():
            self.begin(step.dataset, parallel.whole(step.rng))
        with no_grad():
            v = self.state(step.batch().images)
            model, rng = (self.chains, parallel.whole(step.rng)) if self.persistent else (v, step.rng)
            machine = self.machine()
            for _ in range(self.steps):
                model = machine.gibbs(model, rng)
        parts = step.minimize(lambda: self.free_energies(v, model), "sgd")
        self.weights.update()
        if self.persistent:
            self.chains.write()[...] = model._array
        return parts

    def free_energies(self, v: Tensor, model: Tensor) -> dict[str, Tensor]:
        """The parts of the loss, of visible states v of the data and of the model, (N, visible) both."""
        machine = self.machine()
        return {"images": machine.free_energy(v).mean(), "chains": -machine.free_energy(model).mean()}

    # -- the chain

    def start(self, n: int, rng: np.random.Generator) -> Tensor:
        with no_grad():
            bias = self.machine().visible_bias
            return self.units.sample(bias.expand(n, len(bias)), rng)

    def warm_start(self, n: int, rng: np.random.Generator) -> Tensor:
        """Persistent chains, any of them: those have visited more of the model than a new one does in its time."""
        if not self.persistent:
            return self.start(n, rng)
        return self.chains[rng.integers(0, len(self.chains), n)]

    def transition(self, state: Tensor, rng: np.random.Generator, temperature: float = 1.0) -> Tensor:
        return self.machine().gibbs(state, rng, temperature)

    def clamped(self, state: Tensor, given: Tensor, known: np.ndarray) -> Tensor:
        known = np.pad(known.reshape(-1), (0, state.shape[1] - self.dimensions))  # no image shows the units after them
        return where(known, given, state)
