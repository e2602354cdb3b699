"""The moving average of a network's weights, which is evaluated and sampled in place of what the last step left.

    a <- d a + (1 - d) w    after every step, with d = min(decay, (1 + n) / (10 + n)) after n of them

The last weights are noisy, since the last batches pulled at them; their average isn't. The smaller d of the first steps
lets it forget the weights that training started from, so that short trainings have an average that is worth something.

Source: Polyak & Juditsky, Acceleration of stochastic approximation by averaging (1992); Kingma & Ba, Adam (2015),
section 7.2, in this form.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from tinygen import Tensor, nn, tensor


class Averaged(nn.Module):
    """A network that computes with its weights in training, and with their average in evaluation.

    The average is a second network whose weights are buffers: checkpoints hold it, and optimizers don't see it.
    Buffers of the network, such as the statistics of batch norm, aren't averaged but copied.

    Args:
        network: any module.
        decay: how much of the average a step keeps.

    Raises ValueError for a decay that isn't from 0 to below 1.
    """

    updates: Tensor

    def __init__(self, network: nn.Module, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be from 0 to below 1, got {decay}")
        self.network, self.average, self.decay = network, buffered(network), decay
        self.register_buffer("updates", tensor(np.zeros((), np.int64)))

    @property
    def current(self) -> Any:
        """The network itself in training, that of the averages in evaluation."""
        return self.network if self.training else self.average

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What it gives."""
        return self.current(*args, **kwargs)

    def update(self) -> None:
        """Take in the weights as they are now: after each step of the optimizer."""
        count = self.updates.write()
        count += 1
        decay = min(self.decay, (1 + int(count)) / (10 + int(count)))
        learned, copied = dict(self.network.named_parameters()), dict(self.network.named_buffers())
        for name, average in self.average.named_buffers():
            array = average.write()
            if name in learned:
                array += (learned[name].detach() - average)._array * (1 - decay)
            else:
                array[...] = copied[name]._array

    def settle(self) -> None:
        """From now on there is one network, whose weights are the average: for what is trained further."""
        self.network.load_state_dict(self.average.state_dict())
        self.average = self.network


def buffered(network: nn.Module) -> nn.Module:
    """A copy of a network whose parameters are buffers. One that several layers share is shared there, too."""
    network = copy.deepcopy(network)
    made: dict[int, Tensor] = {}
    for module in network.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, Tensor) and value.requires_grad:
                module.register_buffer(name, made.setdefault(id(value), tensor(value.detach())))
    return network
