"""Every model on several ranks: the same training as in one process."""

from __future__ import annotations

import os

import numpy as np
import pytest

from tests.models.small import CLASSES, SMALL, new
from tests.parallel.together import together
from tinygen import parallel
from tinygen.data import Dataset
from tinygen.training import buckets
from tinygen.training.config import Config
from tinygen.training.run import Run
from tinygen.training.trainer import Trainer

FULL = os.environ.get("TINYGEN_FULL") == "1"
REFUSED = {
    "textgan": "which images it takes",
    "textgan, lstm": "which images it takes",
    "simclr": "its loss compares",
    "colorization": "its loss is a mean over pixels",
}
SHARED = [name for name in SMALL if name not in REFUSED]
LOCAL = {"strangers", "returned"}  # shown, of images beside each other; each rank has its own, and the mean is shown


def trained(name, steps, batch=6, dtype=np.float64, n=15):
    """The numbers of some steps of training, the model's state, and the generator's. 15 images, so the third minibatch
    of an epoch has 3: shares of 1 and 2."""
    rows, trainer = training(name, steps, batch, dtype, n)
    return rows, trainer.model.state_dict(), trainer.rng.bit_generator.state


def training(name, steps, batch=6, dtype=np.float64, n=15, of=None):
    """The numbers of the first steps of a training of so many, and what trained."""
    rng = np.random.default_rng(0)
    model = new(name, (1, 4, 4), 4, rng).to(dtype)
    images = np.random.default_rng(1).integers(0, 4, (n, 1, 4, 4)).astype(np.uint8)
    data = Dataset(images, levels=4, labels=np.random.default_rng(2).integers(0, CLASSES, n))
    trainer = Trainer(
        Config(SMALL[name][0], options=SMALL[name][1], batch_size=batch, lr=model.lr, epochs=1000), model, data, rng
    )
    model.train()
    return [trainer.advance(i / (of or steps)) for i in range(steps)], trainer


@pytest.mark.parametrize("name", SHARED)
def test_a_training_on_two_ranks_is_that_of_one_process(name):
    settings = {"batch": 5 if name in ("cyclegan", "discogan") else 6}  # these take two minibatches a step: of one size
    rows, state, place = trained(name, 4, **settings)
    for other, weights, generator in together(2, lambda: trained(name, 4, **settings)):
        for row, its in zip(rows, other, strict=True):
            assert row.keys() == its.keys()
            for number in row.keys() - LOCAL:
                np.testing.assert_allclose(its[number], row[number], 1e-9, 1e-12, err_msg=number)
        for key in state:
            np.testing.assert_allclose(weights[key], state[key], 1e-7, 1e-9, err_msg=key)
        assert generator == place


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("name", SHARED if FULL else ["pixelcnn", "gan", "glow", "infogan", "cyclegan"])
def test_a_sharded_optimizer_is_the_whole_one_to_the_bit(name, size, monkeypatch):
    """With a bucket for each parameter: numbers, parameters, what is saved; and each rank has a part of it."""
    monkeypatch.setattr(buckets, "BYTES", 1)

    def work():
        rows, trainer = training(name, 3, 5 if name in ("cyclegan", "discogan") else 6)
        saved = {name: trainer._whole(name) for name in trainer.optimizers}
        return rows, trainer.model.state_dict(), saved, [s for o in trainer.optimizers.values() for s in o.state]

    plain, sharded = together(size, work), together(size, work, sharded=True)
    for (rows, state, _, _), (its_rows, its_state, _, _) in zip(plain, sharded, strict=True):
        assert rows == its_rows
        assert all(np.array_equal(its_state[key], value) for key, value in state.items())
    (_, _, saved, whole), (_, _, its, _) = plain[0], sharded[0]
    for optimizer, state in saved.items():
        assert list(its[optimizer]) == list(state)
        assert all(np.array_equal(its[optimizer][key], value) for key, value in state.items())
    for parts in zip(*(parts for _, _, _, parts in sharded), strict=True):
        assert sum(map(bool, parts)) <= 1  # each state is one rank's
    kept = [sum(map(bool, parts)) for _, _, _, parts in sharded]
    assert sum(kept) == sum(map(bool, whole))
    assert max(kept) < max(1, sum(kept))


def test_a_sharded_training_is_saved_whole_and_goes_on_with_any_number_of_ranks(tmp_path, monkeypatch):
    monkeypatch.setattr(buckets, "BYTES", 1)

    def begin():
        _, trainer = training("pixelcnn", 2, dtype=np.float32, of=4)
        trainer.save(None if parallel.current().rank else Run(tmp_path))

    def go_on():
        run = Run(tmp_path)
        _, model, state = run.load(run.checkpoint)
        rng = np.random.default_rng(5)
        trainer = Trainer(trained_before.config, model, trained_before.dataset, rng)
        trainer.restore(run, state)
        model.train()
        kept = sum(map(bool, trainer.optimizers["adam"].state))
        return [trainer.advance(i / 4) for i in (2, 3)], kept

    rows, trained_before = training("pixelcnn", 4, dtype=np.float32)
    together(3, begin, sharded=True)
    for size, sharded in ((1, False), (2, True), (2, False)):
        found = together(size, go_on, sharded)
        for its, _ in found:
            assert its == [pytest.approx(row, 1e-5) for row in rows[2:]]
        if sharded:
            assert sum(kept for _, kept in found) == len(trained_before.optimizers["adam"].state)


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_cannot_be_shared_says_so(name):
    with pytest.raises(ValueError, match=f"{SMALL[name][0]} can't be trained by 2 ranks: {REFUSED[name]}"):
        together(2, lambda: trained(name, 1))


@pytest.mark.parametrize(("dtype", "bound"), [(np.float32, 1e-6), (np.float64, 1e-12)])
@pytest.mark.parametrize("name", ["pixelcnn", "vae", "dcgan", "gan", "nice", "diffusion"])
def test_losses_stay_those_of_one_process(name, dtype, bound):
    """With --full over 100 steps on two and on four ranks, and with shares that differ."""

    def losses(batch):
        rows = trained(name, 100 if FULL else 10, batch, dtype, 48)[0]
        parts = "nll", "nats", "reconstruction", "kl", "d_loss", "penalty", "mse"
        return [sum(row.get(part, 0.0) for part in parts) for row in rows] + [row.get("g_loss", 1.0) for row in rows]

    for batch in (16, 14) if FULL else (14,):
        for size in (2, 4) if FULL else (2,):
            for found in together(size, lambda batch=batch: losses(batch)):
                np.testing.assert_allclose(found, losses(batch), bound)
