"""Defaults, options and refusals of network functions and layers that a user meets one at a time."""

import numpy as np
import pytest

import tinygen
from tinygen import nn
from tinygen.nn import functional as F


def rng():
    return np.random.default_rng(0)


def normal(*shape):
    return tinygen.tensor(rng().standard_normal(shape))


def test_convolutions_have_no_padding_unless_told():
    assert F.conv2d(normal(1, 2, 5, 5), normal(3, 2, 3, 3)).shape == (1, 3, 3, 3)
    assert F.conv1d(normal(1, 2, 5), normal(3, 2, 3)).shape == (1, 3, 3)
    assert F.conv_transpose2d(normal(1, 3, 3, 3), normal(3, 2, 3, 3)).shape == (1, 2, 5, 5)
    assert F.conv_transpose1d(normal(1, 3, 3), normal(3, 2, 3)).shape == (1, 2, 5)


def test_layers_show_what_was_left_out():
    assert repr(nn.Bilinear(2, 3, 4, rng=rng())) == "Bilinear(2, 3, 4)"
    assert repr(nn.Bilinear(2, 3, 4, bias=False, rng=rng())) == "Bilinear(2, 3, 4, bias=False)"
    assert repr(nn.GatedActivation()) == "GatedActivation()"


@pytest.mark.parametrize("axes", [3, 4, 5])
def test_dirac_keeps_each_channel_at_the_center(axes):
    weight = nn.init.dirac_(tinygen.tensor(np.full((4, 2, *[3] * (axes - 2)), np.nan)), groups=2).numpy()
    expected = np.zeros_like(weight)
    for out in range(4):
        expected[(out, out % 2, *[1] * (axes - 2))] = 1
    np.testing.assert_array_equal(weight, expected)


@pytest.mark.parametrize("groups", [0, 3])
def test_dirac_refuses_groups_that_do_not_divide_the_outputs(groups):
    with pytest.raises(ValueError, match="dirac_"):
        nn.init.dirac_(normal(4, 3, 3, 3), groups=groups)
    nn.init.dirac_(normal(3, 2, 3, 3), groups=3)


@pytest.mark.parametrize("axes", [2, 6])
def test_dirac_refuses_what_is_no_convolution(axes):
    with pytest.raises(ValueError, match="dirac_"):
        nn.init.dirac_(normal(*[2] * axes))


def test_the_probabilities_of_all_levels_sum_to_1():
    levels = 5
    target = np.arange(levels).reshape(1, 1, 1, levels)
    mean, log_scale = (tinygen.tensor(np.full((1, 1, 1, levels), value)) for value in (0.3, -0.7))
    nll = F.discretized_logistic_nll(mean, log_scale, target, levels, reduction="none").numpy()
    assert np.exp(-nll).sum() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("levels", [1, 0, 2.5])
def test_a_logistic_takes_two_levels_or_more(levels):
    with pytest.raises(ValueError, match="levels"):
        F.discretized_logistic_nll(normal(1, 1, 2, 2), normal(1, 1, 2, 2), np.zeros((1, 1, 2, 2), int), levels)


@pytest.mark.parametrize("mask", ["booleans", "numbers"])
def test_who_may_look_at_nothing_sees_zeros(mask):
    allowed = np.array([[True, False, True], [False, False, False]])
    given = allowed if mask == "booleans" else np.where(allowed, 0.0, -np.inf)
    query, key, value = normal(1, 2, 4), normal(1, 3, 4), normal(1, 3, 5)
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=given).numpy()
    np.testing.assert_array_equal(out[0, 1], 0)
    alone = F.scaled_dot_product_attention(query[:, :1], key[:, ::2], value[:, ::2]).numpy()
    np.testing.assert_allclose(out[:, :1], alone, rtol=1e-12)


def test_attention_drops_nothing_in_evaluation():
    layer = nn.MultiheadAttention(4, 2, dropout=0.5, rng=rng())
    plain = nn.MultiheadAttention(4, 2, rng=rng())
    x = tinygen.tensor(rng().standard_normal((3, 1, 4)).astype(np.float32))
    expected = plain(x, x, x)[0].numpy()
    np.testing.assert_array_equal(layer.eval()(x, x, x)[0].numpy(), expected)
    assert (layer.train()(x, x, x)[0].numpy() != expected).any()


def test_class_weights_may_be_an_array_or_a_tensor():
    logits, target, weight = normal(4, 3), np.array([0, 1, 2, 0]), np.array([1.0, 2.0, 3.0])
    expected = F.cross_entropy(logits, target, weight=weight).numpy()
    for given in (weight, tinygen.tensor(weight)):
        assert nn.CrossEntropyLoss(weight=given)(logits, target).numpy() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("p", [-0.1, 1.5])
def test_dropout_takes_a_probability(p):
    with pytest.raises(ValueError, match="p must be"):
        nn.Dropout(p, rng=rng())


def test_a_layer_names_the_argument_that_is_no_tensor():
    with pytest.raises(TypeError, match=r"BatchNorm2d: input is a list"):
        nn.BatchNorm2d(3)([[1.0, 2.0]])
