"""Data sets and minibatches, NumPy alone: the embedded digits, local files, downloads with a checksum."""

from tinygen.data.dataset import Dataset, quantize, subset, threshold
from tinygen.data.levels import Levels
from tinygen.data.minibatches import Minibatches
from tinygen.data.sources import NAMES, load

__all__ = ["NAMES", "Dataset", "Levels", "Minibatches", "load", "quantize", "subset", "threshold"]
