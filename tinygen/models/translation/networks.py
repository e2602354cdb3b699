"""The players of a translation: the generator, the discriminator of patches, and the pool of images it is shown."""

from __future__ import annotations

import itertools

import numpy as np

from tinygen import Tensor, nn, parallel, tensor
from tinygen.models.networks.unet import UNet
from tinygen.nn import functional as F


class Dropout(nn.Module):
    """Dropout in evaluation, too, by a generator that is set before each pass; none set: x as it is."""

    rng: np.random.Generator | None = None

    def __init__(self, p: float) -> None:
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return x if self.rng is None else F.dropout(x, self.p, True, rng=self.rng)


class Generator(nn.Module):
    """G: images (N, inputs, H, W) -> (N, outputs, H, W), from -1 to 1, by a U-Net of two scales.

    Images of 16x16 or more are given to it as patches of 2x2 pixels, if their sides are multiples of 4. There is
    dropout at the smallest scale.

    Raises ValueError for images with an odd height or width.
    """

    def __init__(
        self, inputs: int, outputs: int, sides: tuple[int, int], width: int, dropout: float = 0.0, *,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        if sides[0] % 2 or sides[1] % 2:
            raise ValueError(f"image_shape must have an even height and width, got {sides[0]}x{sides[1]}")
        self.patch = 2 if min(sides) >= 16 and not (sides[0] % 4 or sides[1] % 4) else 1
        pixels = self.patch**2
        self.unet = UNet(inputs * pixels, outputs * pixels, (width, 2 * width), attention=False, rng=rng)
        self.dropout = Dropout(dropout)
        vars(self.unet)["attention"] = self.dropout  # where attention would be: at the smallest scale

    def forward(self, x: Tensor, rng: np.random.Generator | None = None) -> Tensor:
        """rng: of what is dropped; None: nothing is."""
        self.dropout.rng = rng
        return F.pixel_shuffle(self.unet(F.pixel_unshuffle(x, self.patch)), self.patch).tanh()


class PatchDiscriminator(nn.Module):
    """D: images (N, C, H, W) -> a value for each patch, (N, 1, H/4, W/4), rounded down.

    Three convolutions; a patch is what the last one sees of the image, 18x18 pixels. There is no normalization, by
    whose mean and variance every patch would see the whole image. Images smaller than 4x4 are halved once only.

    Source: Isola et al., Image-to-Image Translation with Conditional Adversarial Networks (2017), section 3.2.2.
    """

    def __init__(self, channels: int, sides: tuple[int, int], width: int, *, rng: np.random.Generator) -> None:
        widths = [channels, width, 2 * width] if min(sides) >= 4 else [channels, width]
        halving = [nn.Conv2d(a, b, 4, 2, 1, rng=rng) for a, b in itertools.pairwise(widths)]
        self.layers = nn.ModuleList([*halving, nn.Conv2d(widths[-1], 1, 3, 1, 1, rng=rng)])

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The patches' values, and the outputs of the hidden layers: features, to be matched."""
        features = []
        *hidden, last = self.layers
        for layer in hidden:
            x = F.leaky_relu(layer(x), 0.2)
            features.append(x)
        return last(x), features


class ImagePool(nn.Module):
    """The last images of a generator, or older ones: half of those that are drawn, once there are `size` of them.

    So D doesn't forget what it has told from real images before. What is in it is a buffer: checkpoints hold it.

    Source: Shrivastava et al., Learning from Simulated and Unsupervised Images (2017), section 2.3; 50 images as in
    Zhu et al. (2017), section 4.
    """

    images: Tensor
    filled: Tensor

    def __init__(self, image_shape: tuple[int, int, int], size: int = 50) -> None:
        self.register_buffer("images", tensor(np.zeros((size, *image_shape), np.float32)))
        self.register_buffer("filled", tensor(np.zeros((), np.int64)))

    def exchange(self, fresh: Tensor, rng: np.random.Generator) -> Tensor:
        """As many images as `fresh` (N, C, H, W) has: itself, but for those that an older one stands for.

        While the pool isn't full, an image is kept and given as it is. Then, each with probability 1/2, one of the
        pool's is given, in whose place the image is kept. Of several ranks each exchanges the images of all.
        """
        size, rng, (images, own) = len(self.images), parallel.whole(rng), parallel.all_gather(fresh.numpy())
        kept, given, filled = self.images.write(), fresh.new_tensor(images)._array, self.filled.write()
        older, places = rng.random(len(given)) < 0.5, rng.integers(0, size, len(given))
        for i, place in enumerate(places):
            if filled < size:
                kept[int(filled)] = given[i]
                filled += 1
            elif older[i]:
                image = kept[place].copy()
                kept[place] = given[i]
                given[i] = image
        return fresh.new_tensor(given[own])
