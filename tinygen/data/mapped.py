"""Images in a file that needn't fit into memory."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

IN_MEMORY = 1 << 27  # bytes: images that take no more are held in memory
CHUNK = 1 << 24  # bytes that are looked at together
PART = 1 << 24  # bytes of the part of the others that trivial models see


class MappedImages:
    """Images of a memory map, (N, C, H, W) uint8, read from the file when they are indexed; what is read is a copy.

    file: a memory map, (M, C, H, W), in any layout. rows: which of its images these are, (N,); None: all. values: what
    each byte of the file stands for, (256,) uint8; None: itself.
    """

    dtype, ndim = np.dtype(np.uint8), 4

    def __init__(self, file: np.ndarray, rows: np.ndarray | None = None, values: np.ndarray | None = None) -> None:
        self._file, self._values = file, values
        self._rows = np.arange(len(file)) if rows is None else rows
        self.shape = (len(self._rows), *file.shape[1:])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        images = np.ascontiguousarray(self._file[self._rows[index]])
        return images if self._values is None else self._values[images]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of them: only for what is known to be small."""
        return np.asarray(self[:], dtype)

    def digest(self) -> str:
        """The SHA-256 of the bytes in the file and of what they stand for: about a second for each GB."""
        digest = hashlib.sha256(b"" if self._values is None else self._values.tobytes())
        step = max(1, CHUNK // self._file[0].size)
        for i in range(0, len(self), step):
            digest.update(np.ascontiguousarray(self._file[self._rows[i : i + step]]).data)
        return digest.hexdigest()

    @property
    def nbytes(self) -> int:
        """The bytes that all of them would take in memory."""
        return len(self) * self._file[0].size

    def subset(self, index: Any) -> MappedImages:
        """Those that `index` names, none of them read."""
        return MappedImages(self._file, self._rows[index], self._values)

    def with_values(self, values: np.ndarray) -> MappedImages:
        """The images with each value x (0 .. 255) become values[x], none of them read."""
        return MappedImages(self._file, self._rows, values if self._values is None else values[self._values])
