"""The counterpart of `torch.nn.utils`."""

from tinygen.nn.utils import parametrizations

__all__ = ["parametrizations"]
