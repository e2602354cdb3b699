"""The U-Net, and normalization by a vector."""

import numpy as np
import pytest

from tinygen import nn, tensor
from tinygen.models.networks.modulation import Modulated
from tinygen.models.networks.unet import UNet
from tinygen.nn import functional as F


def rng(seed=0):
    return np.random.default_rng(seed)


def normal(*shape, seed=0):
    return tensor(rng(seed).standard_normal(shape))


def randomized(module, scale=0.3):
    numbers = rng(3)
    for p in module.parameters():
        p.write()[...] = scale * numbers.standard_normal(p.shape)
    return module.to(np.float64)


def net(size=5, **options):
    return randomized(UNet(2, 3, (4, 6, 8), size, rng=rng(), **options))


def test_it_starts_at_zero_and_every_block_as_the_identity():
    model = UNet(2, 3, (4, 8), 5, rng=rng()).to(np.float64)
    x, v = normal(2, 2, 4, 4), normal(2, 5)
    assert not model(x, v).numpy().any()
    h = normal(2, 4, 4, 4)
    np.testing.assert_array_equal(model.down[0](h, v).numpy(), h.numpy())
    h = normal(2, 8, 2, 2)
    np.testing.assert_array_equal(model.attention(h).numpy(), h.numpy())


@pytest.mark.parametrize("size", [0, 5])
def test_every_weight_takes_part(size):
    model = net(size)
    model(normal(2, 2, 4, 8), normal(2, size) if size else None).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.numpy().any()] == []


def test_images_do_not_see_each_other_and_one_vector_serves_all():
    model, x, v = net(), normal(3, 2, 4, 4), normal(3, 5)
    together = model(x, v).numpy()
    for i in range(3):
        alone = model(x[i : i + 1], v[i : i + 1]).numpy()
        np.testing.assert_allclose(together[i : i + 1], alone, rtol=0, atol=1e-12)
    assert np.abs(model(x, v[[1, 0, 2]]).numpy() - together)[:2].min(0).max() > 1e-3
    repeated = model(x, tensor(np.repeat(v.numpy()[:1], 3, 0))).numpy()
    np.testing.assert_allclose(model(x, v[:1]).numpy(), repeated, rtol=0, atol=1e-12)


def test_every_pixel_is_seen_by_way_of_attention_and_not_without():
    """At the smallest scale it sees all; without it a pixel depends on its neighborhood."""
    x = normal(1, 2, 32, 32)
    near = tensor(x.numpy(), requires_grad=True)
    for attention, all_of_it in ((True, True), (False, False)):
        model = randomized(UNet(2, 1, (2, 3), attention=attention, rng=rng()))
        for module in model.modules():  # norms see the whole image as well
            if isinstance(module, nn.GroupNorm):
                module.forward = lambda h, shift=None: F.silu(h)
        near.grad = None
        model(near)[0, 0, 0, 0].backward()
        assert (np.abs(near.grad.numpy()).sum((0, 1)) > 0).all() == all_of_it


def test_what_does_not_fit_is_told():
    with pytest.raises(ValueError, match=r"UNet of 3 scales: height and width must be multiples of 4, got \(1, 2, 6,"):
        net()(normal(1, 2, 6, 8), normal(1, 5))
    with pytest.raises(ValueError, match=r"UNet: it takes a vector of 5 numbers, got none"):
        net()(normal(1, 2, 8, 8))
    with pytest.raises(ValueError, match=r"UNet: it takes no vector, got \(1, 5\)"):
        net(0)(normal(1, 2, 8, 8), normal(1, 5))


@pytest.mark.parametrize("kind", [lambda: nn.GroupNorm(2, 4, affine=False), lambda: nn.BatchNorm2d(4, affine=False)])
def test_modulation_is_the_norm_with_a_scale_and_a_shift_of_each_image(kind):
    x, vector = normal(3, 4, 2, 5), normal(3, 6)
    layer = Modulated(kind(), 4, 6, rng=rng()).to(np.float64)
    plain = kind().to(np.float64)(x).numpy()
    np.testing.assert_array_equal(layer(x, vector).numpy(), plain)  # at first
    randomized(layer)
    s, b = np.split(vector.numpy() @ layer.affine.weight.numpy().T + layer.affine.bias.numpy(), 2, axis=1)
    expected = plain * (1 + s[:, :, None, None]) + b[:, :, None, None]
    np.testing.assert_allclose(layer(x, vector).numpy(), expected, rtol=0, atol=1e-12)
