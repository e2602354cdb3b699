"""The one registry of models: their names on the command line, and where their classes are."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple


class Entry(NamedTuple):
    """A model: its class, as MODULE:CLASS beneath tinygen.models, imported when it is asked for; and what it is."""

    path: str
    about: str


MODELS = {
    "made": Entry("autoregressive.made:MADE", "masked autoencoder with direct connections; --hidden 0: the FVSBN"),
    "nade": Entry("autoregressive.nade:NADE", "a hidden layer for every value, one addition from the one before"),
    "pixelcnn": Entry("autoregressive.pixelcnn:PixelCNN", "masked convolutions in residual blocks"),
    "pixelrnn": Entry("autoregressive.pixelrnn:PixelRNN", "Row LSTM, or Diagonal BiLSTM"),
    "multiscale": Entry("autoregressive.multiscale:MultiScalePixelRNN", "a small image first, then the pixels between"),
    "gated": Entry("autoregressive.gated:GatedPixelCNN", "two stacks without a blind spot; can be told the class"),
    "pixelcnnpp": Entry("autoregressive.pixelcnnpp:PixelCNNpp", "PixelCNN++: mixtures of discretized logistics"),
    "autoencoder": Entry("vae.autoencoder:Autoencoder", "four convolutions down to a code, four transposed ones up"),
    "vae": Entry("vae.vae:VAE", "variational autoencoder: codes with a Gaussian posterior, trained on the ELBO"),
    "iwae": Entry("vae.iwae:IWAE", "a VAE trained on the tighter, importance-weighted bound"),
    "mixture-vae": Entry("vae.mixture:MixtureVAE", "a VAE with a mixture of Gaussians as posterior"),
    "mixture-iwae": Entry("vae.iwae:MixtureIWAE", "a mixture as posterior, trained on the importance-weighted bound"),
    "categorical-vae": Entry("vae.categorical:CategoricalVAE", "a VAE with categorical latent variables"),
    "m2": Entry("vae.m2:M2", "a VAE with a class, told for few images, summed over for all others"),
    "nice": Entry("flow.nice:NICE", "a flow of additive couplings, with a logistic prior"),
    "realnvp": Entry("flow.realnvp:RealNVP", "a flow of affine couplings, by checkerboards and by channels"),
    "glow": Entry("flow.glow:Glow", "a flow of actnorm, invertible 1x1 convolutions and couplings"),
    "ffjord": Entry("flow.ffjord:FFJORD", "a flow in continuous time, for small images"),
    "rbm": Entry("energy.rbm:RBM", "restricted Boltzmann machine: trained by CD-k or PCD, measured by AIS"),
    "dbm": Entry("energy.dbm:DBM", "deep Boltzmann machine of two hidden layers, trained by mean field and PCD"),
    "gsn": Entry("energy.gsn:GSN", "generative stochastic network: a chain that is trained by denoising"),
    "diffusion": Entry("diffusion.diffusion:Diffusion", "noise taken out of images step by step: DDPM and DDIM"),
    "score": Entry(
        "diffusion.score:ScoreModel", "the gradient of log q of noisy images, and Langevin's chain along it"
    ),
    "flow-matching": Entry(
        "diffusion.flow_matching:FlowMatching", "straight lines from noise to images, by Euler's steps"
    ),
    "gan": Entry("gan.gan:GAN", "two multilayer perceptrons that learn from each other"),
    "textgan": Entry("gan.textgan:TextGAN", "a DCGAN that draws what a caption says"),
    "dcgan": Entry("gan.dcgan:DCGAN", "a GAN of strided and transposed convolutions"),
    "acgan": Entry("gan.acgan:ACGAN", "a DCGAN that is told the class, whose discriminator has to find it"),
    "bigan": Entry("gan.bigan:BiGAN", "a DCGAN with an encoder, against a discriminator of images and codes"),
    "cogan": Entry("gan.cogan:CoGAN", "two coupled DCGANs: pairs of images and outlines, learned without any pair"),
    "semigan": Entry("gan.semigan:SemiGAN", "a DCGAN whose discriminator tells classes, by few labels"),
    "infogan": Entry("gan.infogan:InfoGAN", "a DCGAN with a code that can be read in its images, found without labels"),
    "lapgan": Entry("gan.lapgan:LAPGAN", "a GAN of small images, and one for each detail that makes them larger"),
    "biggan": Entry("gan.biggan:BigGAN", "a residual GAN that is told the class in every norm, with truncation"),
    "progressive": Entry("gan.progressive:ProgressiveGAN", "a GAN that begins with small images and grows"),
    "pix2pix": Entry("translation.pix2pix:Pix2Pix", "images to images by pairs: a U-Net, a discriminator of patches"),
    "cyclegan": Entry("translation.cyclegan:CycleGAN", "images to images without pairs: there and back"),
    "discogan": Entry("translation.discogan:DiscoGAN", "images to images without pairs, by matching features"),
    "rotation": Entry("selfsupervised.rotation:Rotation", "features: by how much is an image turned?"),
    "inpainting": Entry("selfsupervised.inpainting:ContextEncoder", "features: half of an image, from the other half"),
    "colorization": Entry("selfsupervised.colorization:Colorization", "features: the colors of gray images"),
    "simclr": Entry("selfsupervised.simclr:SimCLR", "features: two views of an image alike, unlike all others"),
}


def model_class(name: str) -> Any:
    """The class of a model by its name, imported only now.

    Raises ValueError for a name that there isn't, and for an entry whose module or class there isn't.
    """
    if name not in MODELS:
        raise ValueError(f"no model is named {name!r}; there are {', '.join(MODELS)}")
    where, _, attribute = MODELS[name].path.partition(":")
    module, wrong = f"tinygen.models.{where}", f"MODELS[{name!r}] in tinygen/models/registry.py is wrong:"
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ModuleNotFoundError as e:
        if e.name is None or not f"{module}.".startswith(f"{e.name}."):
            raise  # the module is there; what it imports isn't
        raise ValueError(f"{wrong} there is no module {e.name}") from e
    if not isinstance(found, type):
        raise ValueError(f"{wrong} {module} has no class named {attribute!r}")
    return found
