"""Data sets and minibatches: the embedded digits, local files, downloads with a checksum."""

from tinygen.data.dataset import Dataset, in_memory, quantize, subset, threshold
from tinygen.data.levels import Levels
from tinygen.data.mapped import MappedImages
from tinygen.data.minibatches import Minibatches
from tinygen.data.sources import NAMES, load
from tinygen.data.split import held_out

__all__ = [
    "NAMES", "Dataset", "Levels", "MappedImages", "Minibatches", "held_out", "in_memory", "load", "quantize", "subset",
    "threshold",
]  # fmt: skip
