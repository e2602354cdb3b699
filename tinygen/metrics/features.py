"""Features of images: a small network, trained on the data set itself to tell its classes apart.

The published FID takes its features from Inception, trained on photographs; these here are reproducible from the data,
in seconds. Numbers that rest on them can be compared with each other on one data set, and with nothing published.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np

from tinygen import Tensor, enable_grad, nn, no_grad, optim, parallel, tensor
from tinygen.cache import cache_folder
from tinygen.data import Dataset, Minibatches
from tinygen.nn import functional as F

FEATURES, EPOCHS, STEPS, BATCH, LR = 64, 2, 2000, 64, 2e-3  # at least so many epochs, and so many steps


class FeatureNet(nn.Module):
    """Two convolutions, each with pooling, 64 features, classes: 106,000 parameters for 28x28 gray images."""

    def __init__(self, image_shape: tuple[int, ...], levels: int, classes: int, *, rng: np.random.Generator) -> None:
        channels, height, width = image_shape
        if min(height, width) < 4:
            raise ValueError(f"image_shape must have a height and width of at least 4, got {image_shape}")
        self.levels = levels
        flat = 32 * (height // 4) * (width // 4)
        self.body = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1, rng=rng), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1, rng=rng), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(flat, FEATURES, rng=rng), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(FEATURES, classes, rng=rng)

    def forward(self, images: np.ndarray) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W), integers 0 .. levels - 1 -> features (N, 64) and logits (N, classes)."""
        rows = np.ascontiguousarray(images.transpose(0, 2, 3, 1)).astype(np.float32) * np.float32(2 / (self.levels - 1))
        features = self.body(tensor((rows - 1).transpose(0, 3, 1, 2)))
        return features, self.head(features)

    def of(self, images: np.ndarray, batch: int = 500) -> tuple[np.ndarray, np.ndarray]:
        """Features (N, 64) float64 and the likeliest class (N,) of images."""

        def found(some: slice, _: object) -> np.ndarray:
            features, logits = (t.numpy() for t in self(images[some]))
            return np.concatenate([features, logits.argmax(1)[:, None].astype(np.float32)], axis=1)

        with no_grad():
            rows = parallel.in_shares(found, len(images), batch).astype(np.float64)
        return rows[:, :-1], rows[:, -1].astype(np.int64)

    @property
    def digest(self) -> str:
        """The beginning of the weights' SHA-256: two numbers can be compared if this is the same."""
        digest = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode() + np.ascontiguousarray(value).tobytes())
        return digest.hexdigest()[:12]


def has_features(train: Dataset) -> bool:
    """Whether a network can be trained on it: it has labels, and images of at least 4x4."""
    return train.labels is not None and min(train.images.shape[2:]) >= 4


def class_names(train: Dataset) -> list[str]:
    """The names of a labeled data set's classes, numbers where they have none."""
    return list(train.classes) or [str(i) for i in range(1 + int(np.asarray(train.labels).max()))]


@functools.lru_cache(maxsize=4)  # a Dataset never changes, and is known by its identity
def feature_net(train: Dataset, seed: int = 0) -> FeatureNet:
    """The network for a training set: from the cache folder, or trained now (20 s for 60,000 images) and kept there.

    Raises ValueError for a data set without labels: there is nothing to learn features from.
    """
    if train.labels is None:
        raise ValueError(f"features need labels, and the data set {train.name!r} has none")
    shape, classes = train.images.shape[1:], len(class_names(train))
    net = FeatureNet(shape, train.levels, classes, rng=np.random.default_rng(seed))
    key = hashlib.sha256(train.images.tobytes() + train.labels.tobytes() + f"{train.levels} {seed}".encode())
    path = cache_folder() / f"features-{key.hexdigest()[:16]}.npz"
    if not _load(path, net):
        with enable_grad():  # whoever asks may be without a tape
            _train(net, train, np.random.default_rng(seed))
        _save(path, net)
    net.eval()
    return net


def _train(net: FeatureNet, train: Dataset, rng: np.random.Generator) -> None:
    batches = Minibatches(train, min(BATCH, len(train)), rng, drop_last=True)
    epochs = max(EPOCHS, -(-STEPS // len(batches)))
    optimizer = optim.Adam(net.parameters(), LR)
    schedule = optim.CosineAnnealingLR(optimizer, epochs * len(batches))
    for _ in range(epochs):
        for images, labels in batches:
            loss = F.cross_entropy(net(images)[1], labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def _load(path: Path, net: FeatureNet) -> bool:
    """Whether the network's weights were there; what is damaged or of another version is as if it were not."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            net.load_state_dict(dict(archive))
    except Exception:  # garbage is met with errors of many kinds by zipfile and by NumPy's parser
        return False
    return True


def _save(path: Path, net: FeatureNet) -> None:
    """Keep the weights, whole or not at all. A folder that can't be written costs nothing but time, the next time."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, **net.state_dict())  # type: ignore[arg-type]
            os.replace(part, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part)
