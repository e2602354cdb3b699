"""The lecture's models, one file each, and their names for the command line."""

from __future__ import annotations

import importlib
from typing import Any

MODELS = {
    "pixelcnn": "tinygen.models.pixelcnn:PixelCNN",
    "gated": "tinygen.models.gated:GatedPixelCNN",
    "pixelcnnpp": "tinygen.models.pixelcnnpp:PixelCNNpp",
    "pixelrnn": "tinygen.models.pixelrnn:PixelRNN",
    "multiscale": "tinygen.models.multiscale:MultiScalePixelRNN",
    "made": "tinygen.models.made:MADE",
    "nade": "tinygen.models.nade:NADE",
    "autoencoder": "tinygen.models.autoencoder:Autoencoder",
    "vae": "tinygen.models.vae:VAE",
    "gan": "tinygen.models.gan:GAN",
    "dcgan": "tinygen.models.dcgan:DCGAN",
}


def model_class(name: str) -> Any:
    """The class of a model by its name, imported only now."""
    if name not in MODELS:
        raise ValueError(f"no model is named {name!r}; there are {', '.join(MODELS)}")
    module, _, attribute = MODELS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
