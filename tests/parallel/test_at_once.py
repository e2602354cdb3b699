"""Ranks that are threads of one process, in the kernels at once: also under ThreadSanitizer (tests/sanitize.py)."""

from __future__ import annotations

import numpy as np
import pytest

from tests.parallel.together import together
from tinygen import kernels, parallel
from tinygen.data import Dataset
from tinygen.models.registry import model_class
from tinygen.training.config import Config
from tinygen.training.trainer import Trainer

MODELS = {"pixelcnn": {"hidden": 8, "blocks": 1}, "pixelrnn": {"hidden": 4, "layers": 1}, "dcgan": {"width": 8}}


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_two_ranks_train_and_draw_at_once(name, sharded):
    images = np.random.default_rng(0).integers(0, 4, (16, 1, 8, 8)).astype(np.uint8)
    before = kernels.get_num_threads()

    def work():
        rng = np.random.default_rng(0)
        model = model_class(name)((1, 8, 8), 4, **MODELS[name], rng=rng)
        trainer = Trainer(Config(name, batch_size=8, epochs=9), model, Dataset(images, levels=4), rng)
        model.train()
        rows = [trainer.advance(0.5) for _ in range(3)]
        model.eval()
        with parallel.sharing(parallel.current()):
            return rows, model.sample(5, np.random.default_rng(1))

    try:
        kernels.set_num_threads(2)
        (rows, images_of_one), (other, images_of_other) = together(2, work, sharded)
    finally:
        kernels.set_num_threads(before)
    assert rows == other
    np.testing.assert_array_equal(images_of_one, images_of_other)
