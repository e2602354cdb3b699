"""The lecture's models, one file each, and their names for the command line."""

from __future__ import annotations

import importlib
from typing import Any

MODELS = {
    "pixelcnn": "tinygen.models.autoregressive.pixelcnn:PixelCNN",
    "gated": "tinygen.models.autoregressive.gated:GatedPixelCNN",
    "pixelcnnpp": "tinygen.models.autoregressive.pixelcnnpp:PixelCNNpp",
    "pixelrnn": "tinygen.models.autoregressive.pixelrnn:PixelRNN",
    "multiscale": "tinygen.models.autoregressive.multiscale:MultiScalePixelRNN",
    "made": "tinygen.models.autoregressive.made:MADE",
    "nade": "tinygen.models.autoregressive.nade:NADE",
    "autoencoder": "tinygen.models.vae.autoencoder:Autoencoder",
    "vae": "tinygen.models.vae.vae:VAE",
    "gan": "tinygen.models.gan.gan:GAN",
    "dcgan": "tinygen.models.gan.dcgan:DCGAN",
}


def model_class(name: str) -> Any:
    """The class of a model by its name, imported only now."""
    if name not in MODELS:
        raise ValueError(f"no model is named {name!r}; there are {', '.join(MODELS)}")
    module, _, attribute = MODELS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
