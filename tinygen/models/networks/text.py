"""A caption as a vector."""

from __future__ import annotations

from typing import Literal

import numpy as np

from tinygen import Tensor, nn


class TextEncoder(nn.Module):
    """Rows of words' numbers (N, L), zeros before the first word -> (N, size).

    Args:
        words: how many there are; 0 is none.
        size: of the vector, and of each word's.
        kind: "mean" of the words' vectors, whatever their order; or the last state of an "lstm" that reads them.
        rng: draws the weights.
    """

    def __init__(
        self, words: int, size: int, kind: Literal["mean", "lstm"] = "mean", *, rng: np.random.Generator
    ) -> None:
        self.words = nn.Embedding(words, size, rng=rng)
        self.reader = nn.LSTM(size, size, batch_first=True, rng=rng) if kind == "lstm" else None

    def forward(self, rows: np.ndarray) -> Tensor:
        is_word = (rows > 0)[..., None]
        vectors = self.words(rows)
        vectors = vectors * vectors.new_tensor(is_word.astype(np.float64))
        if self.reader is not None:
            return self.reader(vectors)[1][0][0]
        return vectors.sum(1) / vectors.new_tensor(np.maximum(is_word.sum(axis=1), 1.0))
