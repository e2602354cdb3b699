"""Places for arrays: anywhere, off every vector's alignment, or with their first or last byte beside a forbidden page.

A place is a function (slot, array, writable) -> a copy of the array there; a slot holds one array at a time.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable

import numpy as np

PAGE = mmap.PAGESIZE
_PROT_NONE, _PROT_READ, _PROT_WRITE = 0, 1, 2
_libc = ctypes.CDLL(None, use_errno=True)

Place = Callable[[int, np.ndarray, bool], np.ndarray]


def anywhere(slot: int, array: np.ndarray, writable: bool) -> np.ndarray:
    return np.array(array, order="C")


def shifted(by: int) -> Place:
    """So many elements behind a multiple of 64 bytes."""

    def place(slot: int, array: np.ndarray, writable: bool) -> np.ndarray:
        room = np.empty(array.nbytes + 128 + by * array.itemsize, np.uint8)
        start = -room.ctypes.data % 64 + by * array.itemsize
        out = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        out[...] = array
        return out

    return place


def protect(address: int, nbytes: int, protection: int) -> None:
    if _libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(nbytes), protection):
        raise OSError(ctypes.get_errno(), "mprotect")


class Arena:
    """Pages for one array between two pages that nobody may touch."""

    def __init__(self, nbytes: int):
        self.room = -(-max(nbytes, 1) // PAGE) * PAGE
        self.memory = mmap.mmap(-1, self.room + 2 * PAGE)
        self.first = ctypes.addressof(ctypes.c_char.from_buffer(self.memory)) + PAGE
        protect(self.first - PAGE, PAGE, _PROT_NONE)
        protect(self.first + self.room, PAGE, _PROT_NONE)

    def place(self, array: np.ndarray, at_end: bool) -> np.ndarray:
        offset = PAGE + (self.room - array.nbytes if at_end else 0)
        out = np.frombuffer(self.memory, array.dtype, array.size, offset).reshape(array.shape)
        out[...] = array
        return out

    def freeze(self, frozen: bool) -> None:
        protect(self.first, self.room, _PROT_READ if frozen else _PROT_READ | _PROT_WRITE)


_arenas: dict[int, Arena] = {}


def guarded(at_end: bool, frozen: bool = False) -> Place:
    """The array ends where a forbidden page begins, or begins where one ends. frozen: inputs can't be written."""

    def place(slot: int, array: np.ndarray, writable: bool) -> np.ndarray:
        if slot not in _arenas or _arenas[slot].room < array.nbytes:
            _arenas[slot] = Arena(2 * array.nbytes)
        if frozen:
            _arenas[slot].freeze(False)
        out = _arenas[slot].place(array, at_end)
        if frozen and not writable:
            _arenas[slot].freeze(True)
        return out

    return place


def thaw() -> None:
    """After frozen arrays: every page can be written again."""
    for arena in _arenas.values():
        arena.freeze(False)
