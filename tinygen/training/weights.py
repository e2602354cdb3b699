"""Weights alone, for and from PyTorch users: .safetensors with PyTorch's names, shapes and order in memory."""

from __future__ import annotations

from pathlib import Path

from tinygen.models.model import Model
from tinygen.training import checkpoint


def give(model: Model, path: Path) -> None:
    """Write the model's parameters and buffers; `safetensors.torch.load_file` and `load_state_dict` take them."""
    checkpoint.save(path, model.state_dict(), {"image_shape": list(model.image_shape), "levels": model.levels})


def take(model: Model, path: Path) -> None:
    """Take over the weights in a .safetensors file, also those in a checkpoint of a run.

    Raises ValueError if they don't fit: it says which are missing, unexpected or of another shape.
    """
    tensors, _ = checkpoint.load(path)
    own = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    try:
        model.load_state_dict(own or tensors)
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from e
