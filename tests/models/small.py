"""Every model of the registry, small, for tests of all models. A model in several forms has several names."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygen.models.model import Causal
from tinygen.models.registry import model_class

CLASSES = 3
SMALL: dict[str, tuple[str, dict[str, Any]]] = {  # the model's name in the registry, options that make it small
    "fvsbn": ("made", {"hidden": 0}),
    "made": ("made", {"hidden": 7}),
    "nade": ("nade", {"hidden": 7}),
    "pixelcnn": ("pixelcnn", {"hidden": 6, "blocks": 1}),
    "pixelcnn, plain": ("pixelcnn", {"hidden": 6, "blocks": 2, "residual": False}),
    "gated": ("gated", {"hidden": 6, "layers": 2}),
    "gated, classes": ("gated", {"hidden": 6, "layers": 2, "classes": CLASSES}),
    "row": ("pixelrnn", {"rnn": "row", "hidden": 6, "layers": 2}),
    "diagonal": ("pixelrnn", {"rnn": "diagonal", "hidden": 6, "layers": 2}),
    "multiscale": ("multiscale", {"rnn": "row", "hidden": 6, "layers": 1}),
    "multiscale, diagonal": ("multiscale", {"rnn": "diagonal", "hidden": 6, "layers": 1}),
    "pixelcnnpp": ("pixelcnnpp", {"hidden": 4, "scales": 2, "mixtures": 2}),
    "autoencoder": ("autoencoder", {"latent": 2, "hidden": 2}),
    "vae": ("vae", {"latent": 3, "hidden": 6}),
    "vae, conv": ("vae", {"network": "conv", "latent": 2, "hidden": 2, "likelihood": "gaussian"}),
    "iwae": ("iwae", {"latent": 3, "hidden": 6, "draws": 2}),
    "mixture-vae": ("mixture-vae", {"latent": 3, "hidden": 6, "components": 2}),
    "mixture-iwae": ("mixture-iwae", {"latent": 3, "hidden": 6, "components": 2, "draws": 2}),
    "categorical-vae": ("categorical-vae", {"latent": 3, "hidden": 6}),
    "m2": ("m2", {"latent": 3, "hidden": 6, "classes": CLASSES, "labels": 6}),
    "nice": ("nice", {"hidden": 6}),
    "realnvp": ("realnvp", {"hidden": 4}),
    "glow": ("glow", {"hidden": 4, "steps": 2}),
    "ffjord": ("ffjord", {"hidden": 6, "steps": 2}),
    "rbm": ("rbm", {"hidden": 6, "chains": 5}),
    "rbm, CD": ("rbm", {"hidden": 6, "chains": 0, "steps": 2}),
    "dbm": ("dbm", {"hidden": 6, "top": 4, "chains": 5}),
    "gsn": ("gsn", {"hidden": 6, "walkback": 2}),
    "diffusion": ("diffusion", {"width": 4, "times": 20, "steps": 4}),
    "diffusion, classes": ("diffusion", {"width": 4, "times": 20, "steps": 4, "classes": CLASSES, "guidance": 1.0}),
    "score": ("score", {"width": 4, "noises": 5, "steps": 1}),
    "flow-matching": ("flow-matching", {"width": 4, "steps": 4}),
    "gan": ("gan", {"objective": "wgan-gp", "latent": 3, "width": 6, "critic_steps": 1}),
    "textgan": ("textgan", {"latent": 3, "width": 4, "embedding": 5}),
    "textgan, lstm": ("textgan", {"latent": 3, "width": 4, "embedding": 5, "encoder": "lstm", "interpolate": False}),
    "dcgan": ("dcgan", {"latent": 3, "width": 4}),
    "ebgan": ("gan", {"objective": "ebgan", "latent": 3, "width": 6}),
    "acgan": ("acgan", {"latent": 3, "width": 4, "classes": CLASSES}),
    "bigan": ("bigan", {"latent": 3, "width": 4}),
    "cogan": ("cogan", {"latent": 3, "width": 4}),
    "semigan": ("semigan", {"latent": 3, "width": 4, "classes": CLASSES, "labels": 6}),
    "infogan": ("infogan", {"latent": 3, "width": 4, "categories": 4}),
    "lapgan": ("lapgan", {"latent": 3, "width": 2, "critic_steps": 1}),
    "biggan": ("biggan", {"latent": 3, "width": 2, "critic_steps": 1, "classes": CLASSES}),
    "progressive": ("progressive", {"latent": 3, "width": 2}),
    "pix2pix": ("pix2pix", {"width": 3}),
    "cyclegan": ("cyclegan", {"width": 3}),
    "discogan": ("discogan", {"width": 3}),
    "rotation": ("rotation", {"latent": 8, "hidden": 6}),
    "inpainting": ("inpainting", {"latent": 8, "hidden": 6}),
    "colorization": ("colorization", {"latent": 8, "hidden": 6}),
    "simclr": ("simclr", {"latent": 8, "hidden": 6}),
}
AUTOREGRESSIVE = [name for name, (model, _) in SMALL.items() if issubclass(model_class(model), Causal)]


def new(name: str, shape: Any = (1, 2, 2), levels: int = 3, rng: Any = None, **options: Any) -> Any:
    """A new model for images of this shape, by its name in SMALL; options in place of those there."""
    model, small = SMALL[name]
    return model_class(model)(shape, levels, **{**small, **options}, rng=rng or np.random.default_rng(0))
