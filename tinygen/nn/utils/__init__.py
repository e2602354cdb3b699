"""What PyTorch keeps in `torch.nn.utils`."""

from tinygen.nn.utils import parametrizations

__all__ = ["parametrizations"]
