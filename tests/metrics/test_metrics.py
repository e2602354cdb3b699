"""Distances of sets of images: against closed forms and plain loops, and that they rank what is plainly better."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygen.data import Dataset, load, subset
from tinygen.metrics import features, quality
from tinygen.metrics.distance import auroc, frechet_distance, nearest, precision_recall
from tinygen.metrics.features import FeatureNet, class_names, feature_net

SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def exactly(rng, mean, covariance):
    """Vectors that have exactly this mean and covariance."""
    x = rng.normal(size=(50, len(mean)))
    x -= x.mean(axis=0)
    white = x @ np.linalg.inv(np.linalg.cholesky(np.atleast_2d(np.cov(x.T)))).T
    return white @ np.linalg.cholesky(covariance).T + mean


@settings(max_examples=30)
@given(SEEDS, st.integers(1, 5))
def test_frechet_distance_of_gaussians_that_commute_has_a_closed_form(seed, n):
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(n, n)))
    a, b = rng.uniform(0.1, 3, (2, n))
    means = rng.normal(size=(2, n))
    x, y = (exactly(rng, m, turn @ np.diag(v**2) @ turn.T) for m, v in zip(means, (a, b), strict=True))
    expected = ((means[0] - means[1]) ** 2).sum() + ((a - b) ** 2).sum()
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert frechet_distance(y, x) == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)


def test_frechet_distance_of_any_gaussians_is_that_of_the_matrix_square_root():
    """By Newton's iteration for the root of A B (Denman & Beavers 1976), which needs no symmetry."""
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(100, 4)) @ rng.normal(size=(4, 4)) for _ in range(2))
    a, b = np.cov(x.T), np.cov(y.T)
    root, inverse = a @ b, np.eye(4)
    for _ in range(50):
        root, inverse = (root + np.linalg.inv(inverse)) / 2, (inverse + np.linalg.inv(root)) / 2
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * root)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-8)


@settings(max_examples=20)
@given(SEEDS, st.integers(5, 30), st.integers(5, 30))
def test_precision_and_recall_are_their_definition(seed, n, m):
    rng = np.random.default_rng(seed)
    real, fake = rng.normal(size=(n, 3)), rng.normal(size=(m, 3)) + 0.7

    def share(members, points):
        radii = [sorted(np.linalg.norm(members - one, axis=1))[3] for one in members]
        return np.mean([any(np.linalg.norm(p - q) <= r for q, r in zip(members, radii, strict=True)) for p in points])

    assert precision_recall(real, fake) == (share(real, fake), share(fake, real))


@settings(max_examples=20)
@given(st.lists(st.integers(0, 5), min_size=1), st.lists(st.integers(0, 5), min_size=1))
def test_the_area_under_the_roc_curve_is_how_often_a_positive_is_higher(positive, negative):
    expected = np.mean([(p > n) + (p == n) / 2 for p in positive for n in negative])
    assert auroc(np.array(positive, float), np.array(negative, float)) == pytest.approx(expected)


def test_precision_and_recall_tell_blur_from_collapse():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(600, 4))
    assert min(precision_recall(real, rng.normal(size=(600, 4)))) > 0.8
    precision, recall = precision_recall(real, 0.1 * rng.normal(size=(600, 4)))  # one mode alone
    assert precision > 0.9
    assert recall < 0.1
    assert precision_recall(real, real + 100) == (0, 0)


@settings(max_examples=20)
@given(SEEDS, st.integers(1, 600), st.integers(1, 20))
def test_nearest_is_the_nearest(seed, n, m):
    rng = np.random.default_rng(seed)
    points, among = rng.integers(0, 256, (n, 5)).astype(np.uint8), rng.integers(0, 256, (m, 5))
    index, distance = nearest(points, among)
    expected = np.linalg.norm(points[:, None].astype(float) - among, axis=2)
    np.testing.assert_allclose(distance, expected[np.arange(n), index], rtol=1e-12)
    np.testing.assert_allclose(expected[np.arange(n), index], expected.min(axis=1), rtol=1e-3, atol=0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: frechet_distance(np.zeros((1, 2)), np.zeros((5, 2))), "takes at least 2 vectors of each, got 1 and 5"),
        (lambda: precision_recall(np.zeros((9, 2)), np.zeros((3, 2))), "takes more than 3 vectors of each, got 9"),
        (lambda: feature_net(Dataset(np.zeros((3, 1, 8, 8), np.uint8))), "features need labels, and the data set ''"),
        (
            lambda: FeatureNet((1, 3, 9), 2, 2, rng=np.random.default_rng(0)),
            r"image_shape must have a height and width of at least 4, got \(1, 3, 9\)",
        ),
    ],
)
def test_bad_input_is_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ------------------------------------------------------------------------------------------------- features and quality


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture(scope="module")
def qualities(digits):
    """Quality of images of known quality, by name."""
    train, test = digits
    kinds = {
        "real": train.images[:360],
        "blurred": quality.blurred(test.images),
        "gaussian": quality.gaussian(train, 360),
        "one class": np.resize(train.images[train.labels == 3], (360, 1, 8, 8)),
        "noise": np.random.default_rng(0).integers(0, 17, (360, 1, 8, 8)).astype(np.uint8),
    }
    return {name: quality.quality(images, train, test) for name, images in kinds.items()}


def value(qualities, name):
    return next(m.value for m in qualities if m.name.startswith(name))


def test_the_feature_net_tells_the_classes_apart(digits):
    train, test = digits
    net = feature_net(train)
    _, found = net.of(test.images)
    assert (found == test.labels).mean() > 0.9
    larger = FeatureNet((1, 28, 28), 256, 10, rng=np.random.default_rng(0))
    assert sum(p.numel() for p in larger.parameters()) == 105_866


def test_better_images_have_the_smaller_distance(qualities):
    real, gaussian, one_class, noise = (
        value(qualities[name], "FD*") for name in ("real", "gaussian", "one class", "noise")
    )
    assert real < gaussian / 2 < gaussian < min(one_class, noise) / 2
    known = qualities["noise"][0].baselines
    assert list(known) == ["real images", "blurred", "PCA-Gaussian"]
    assert known["PCA-Gaussian"] == gaussian
    assert known["real images"] == real


def test_what_is_lacking_shows_in_recall_and_classes_and_what_is_bad_in_precision(qualities):
    assert value(qualities["one class"], "recall") < 0.3 < 0.6 < value(qualities["real"], "recall")
    assert value(qualities["noise"], "precision") < 0.4 < 0.7 < value(qualities["real"], "precision")
    assert value(qualities["one class"], "rarest class") == 0
    assert value(qualities["real"], "rarest class") > 5


def test_copies_of_training_images_show(digits, qualities):
    train, test = digits
    assert value(qualities["real"], "memorization ratio") == 0
    assert value(quality.quality(test.images, train, test), "memorization ratio") == 1
    assert value(qualities["noise"], "memorization ratio") > 2


def test_the_rarest_class_stands_beside_all_others(digits):
    train, _ = digits
    metric = quality.rarest(np.array([0, 0, 1, 2, 3, 4, 5, 6, 7, 8]), train)
    assert (metric.name, metric.value, metric.unit) == ("rarest class, 9", 0, "%")
    assert metric.baselines == {str(i): pytest.approx(20 if i == 0 else 10) for i in range(9)}


def test_the_rarest_class_stands_beside_its_share_of_known_images(digits, qualities):
    train, test = digits
    metric = next(m for m in qualities["one class"] if m.name.startswith("rarest class"))
    least = class_names(train).index(metric.name.removeprefix("rarest class, "))
    known = {"real images": train.images[:360], "blurred": quality.blurred(test.images)}
    for name, images in known.items():
        _, classes = feature_net(train).of(images)
        assert metric.baselines[name] == pytest.approx(100 * np.mean(classes == least))
    assert len(metric.baselines) == 3 + 9


def test_without_labels_only_copies_are_looked_for(digits):
    train, test = (Dataset(d.images, d.levels) for d in digits)
    assert [m.name for m in quality.quality(test.images, train, test)] == ["memorization ratio"]


def test_blur_is_a_binomial_average():
    image = np.zeros((1, 1, 5, 5), np.uint8)
    image[0, 0, 2, 2] = 160
    row = np.array([0, 1, 2, 1, 0])
    np.testing.assert_array_equal(quality.blurred(image)[0, 0], 10 * row[:, None] * row)
    flat = np.full((2, 3, 4, 6), 7, np.uint8)
    np.testing.assert_array_equal(quality.blurred(flat), flat)


def test_the_gaussian_has_the_datas_mean_and_variance():
    train = load("digits")[0]
    images = quality.gaussian(Dataset(train.images + np.uint8(100), 256), 4000)  # far from where it would be clipped
    np.testing.assert_allclose(images.mean(axis=0), train.images.mean(axis=0) + 100, atol=0.5)
    np.testing.assert_allclose(images.std(axis=0), train.images.std(axis=0), atol=0.6)


def test_weights_are_kept_and_what_is_damaged_is_made_again(tmp_path, digits, monkeypatch):
    train = subset(digits[0], slice(150))
    monkeypatch.setattr(features, "EPOCHS", 1)
    monkeypatch.setattr(features, "STEPS", 5)
    fresh = feature_net.__wrapped__
    first = fresh(train)
    (path,) = (tmp_path / "tinygen").iterdir()
    monkeypatch.setattr(features, "_train", lambda *_: pytest.fail("trained again"))
    assert fresh(train).digest == first.digest
    assert fresh(train, seed=0).digest == first.digest
    monkeypatch.undo()
    monkeypatch.setattr(features, "EPOCHS", 1)
    monkeypatch.setattr(features, "STEPS", 5)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert fresh(train, seed=1).digest != first.digest
    path.write_bytes(path.read_bytes()[:-100])
    assert fresh(train).digest == first.digest  # made again, from the same seed
    assert len(list((tmp_path / "tinygen").iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_no_reason_to_fail(tmp_path, digits, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    monkeypatch.setattr(features, "EPOCHS", 1)
    monkeypatch.setattr(features, "STEPS", 5)
    assert feature_net.__wrapped__(subset(digits[0], slice(100))).digest


def test_the_digest_is_of_the_weights():
    net = FeatureNet((1, 8, 8), 17, 10, rng=np.random.default_rng(0))
    before = net.digest
    assert len(before) == 12
    digest = hashlib.sha256()
    for name, array in sorted(net.state_dict().items()):
        digest.update(name.encode() + array.tobytes())
    assert digest.hexdigest().startswith(before)
    net.head.bias.write()[0] += 1
    assert net.digest != before
