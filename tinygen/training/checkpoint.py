"""Checkpoints: named arrays and their metadata in one file that is safe to read and safe to write.

A checkpoint is a valid .safetensors file (format: https://github.com/huggingface/safetensors#format): the
header's length as 8 little-endian bytes, a JSON header, then the arrays' bytes, little-endian and in C order.
So PyTorch users open it with the safetensors package, and `load` reads theirs. On top of the format comes a
SHA-256 of the *whole* file, taken with zeros where its own 64 digits stand: it is the header's first value,
hence at a fixed place, and no bit of the file can flip unnoticed. Nothing in a file is ever executed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import math
import os
import secrets
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

_VERSION = "1"
_MAX_HEADER = 100_000_000  # bytes, as in the safetensors package
_MAX_NDIM = 64  # NumPy's
# In the order in which the safetensors package lays them out: large items first, so that all are aligned.
_DTYPES = {"U64": "<u8", "I64": "<i8", "F64": "<f8", "F32": "<f4", "U32": "<u4", "I32": "<i4"}
_DTYPES |= {"F16": "<f2", "U16": "<u2", "I16": "<i2", "I8": "|i1", "U8": "|u1", "BOOL": "|b1"}
_READABLE = _DTYPES | {"BF16": "<u2"}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_PREFIX = b'{"__metadata__":{"tinygen_sha256":"'
_DIGEST = slice(len(_PREFIX), len(_PREFIX) + 64)  # where the checksum stands in the header
_ZEROS = b"0" * 64


class CheckpointError(ValueError):
    """A file that is damaged, malformed or no checkpoint at all; the message names it and what is wrong."""


class _Entry(NamedTuple):
    begin: int
    end: int
    name: str
    code: str
    shape: list[int]


def save(path: str | os.PathLike[str], tensors: dict[str, np.ndarray], metadata: dict[str, Any]) -> None:
    """Write a checkpoint; whatever happens, `path` holds the old checkpoint or the new one, complete.

    tensors: arrays of any shape and memory layout; dtype bool, float16 to float64, (u)int8 to (u)int64.
    metadata: a dict that JSON gives back unchanged (string keys, no tuples, finite numbers).

    The file is written aside in the same folder, flushed to disk and renamed over. Bad arguments raise
    TypeError or ValueError before anything is written; a disk that fails raises OSError with path and reason.
    Only kill -9 or a power cut can leave a `.tinygen-*.tmp` behind, which is never read and safe to delete.
    """
    names, header = _header(tensors, metadata)
    folder = os.path.dirname(path) or "."
    aside = os.path.join(folder, f".tinygen-{secrets.token_hex(8)}.tmp")
    try:
        _write(aside, header, [tensors[name] for name in names])
        os.replace(aside, path)
        _sync(folder)
    except OSError as error:
        reason = f"cannot save the checkpoint: {error.strerror}"
        raise OSError(error.errno, reason, os.fspath(path)) from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(aside)


def load(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a checkpoint, or any other .safetensors file: (tensors, metadata).

    The arrays are fresh, writable, C-contiguous and of native byte order, in the file's order; bfloat16,
    which NumPy lacks, is widened to float32. What `save` wrote must match its checksum. A file of other
    origin has none; its metadata is its `__metadata__`, a dict of strings (empty if it has none).

    Raises CheckpointError for a file that is not sound and OSError for one that cannot be read. Memory stays
    within a small multiple of the file's size, whatever its header claims.
    """
    with _sound(path) as (file, header, fields, entries):
        raws = [np.empty(entry.end - entry.begin, np.uint8) for entry in entries]
        if any(file.readinto(raw.data) != raw.size for raw in raws):
            raise CheckpointError("it became shorter while being read")
        metadata = _metadata(header, fields, raws)
        return {e.name: _typed(e, raw).reshape(e.shape) for e, raw in zip(entries, raws, strict=True)}, metadata


def outline(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The result of `load`, the checksum verified, but with zeros for all values: arrays that take no memory."""
    with _sound(path) as (file, header, fields, entries):
        metadata = _metadata(header, fields, iter(lambda: file.read(1 << 20), b""))
        zero = {code: np.zeros(np.dtype(dtype).itemsize, np.uint8) for code, dtype in _READABLE.items()}
        return {e.name: np.broadcast_to(_typed(e, zero[e.code])[0], e.shape) for e in entries}, metadata


def _header(tensors: dict[str, np.ndarray], metadata: dict[str, Any]) -> tuple[list[str], bytes]:
    """All arguments checked: the names in file order, and the header with zeros for a checksum."""
    codes = {name: _code(name, array) for name, array in tensors.items()}
    names = sorted(tensors, key=lambda name: (list(_DTYPES).index(codes[name]), name))
    own = {"tinygen_sha256": _ZEROS.decode(), "tinygen_version": _VERSION}
    entries: dict[str, Any] = {"__metadata__": own | {"tinygen_metadata": _dump(metadata)}}
    end = 0
    for name in names:
        begin, end = end, end + tensors[name].nbytes
        entries[name] = {"dtype": codes[name], "shape": tensors[name].shape, "data_offsets": (begin, end)}
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    header = text + b" " * (-len(text) % 8)
    if len(header) > _MAX_HEADER:
        raise ValueError(f"names and metadata make a header of {len(header)} bytes, over {_MAX_HEADER}")
    return names, header


def _code(name: str, array: np.ndarray) -> str:
    if problem := _name_problem(name):
        raise ValueError(f"tensors: the name {name!r:.80} {problem}")
    if not isinstance(array, np.ndarray):
        raise TypeError(f"tensors[{name!r}] must be a NumPy array, not {type(array).__name__}")
    code = _CODES.get(array.dtype.newbyteorder("<").str)
    if code is None:
        raise TypeError(f"tensors[{name!r}] has dtype {array.dtype}, expected one of {', '.join(_DTYPES)}")
    return code


def _name_problem(name: Any) -> str:
    """The fault of a tensor's name, or ""; a name is shown to people and may become a file's name."""
    if not isinstance(name, str) or not name.isprintable():
        return "is not printable text"
    if name == "__metadata__":
        return "is reserved by the format"
    if name.startswith("/") or ".." in name.replace("\\", "/").split("/"):
        return "looks like a path out of its folder"
    return ""


def _dump(metadata: dict[str, Any]) -> str:
    try:
        text = json.dumps(metadata, allow_nan=False, separators=(",", ":"))
        same = isinstance(metadata, dict) and _parse(text) == metadata
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"metadata must be a dict of JSON values: {error}") from error
    if not same:
        raise ValueError("metadata must be a dict that JSON gives back unchanged: string keys, no tuples")
    return text


def _parse(text: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys: dict[str, Any] = {}
        for key, value in pairs:
            if key in keys:
                raise ValueError(f"duplicate key {key!r:.80}")
            keys[key] = value
        return keys

    return json.loads(text, object_pairs_hook=unique)


def _write(path: str, header: bytes, arrays: list[np.ndarray]) -> None:
    digest = hashlib.sha256()
    with open(path, "xb") as file:
        start = len(header).to_bytes(8, "little") + header
        for part in itertools.chain((memoryview(start),), map(_raw, arrays)):
            file.write(part)
            digest.update(part)
        file.seek(8 + _DIGEST.start)
        file.write(digest.hexdigest().encode())
        file.flush()
        os.fsync(file.fileno())


def _raw(array: np.ndarray) -> memoryview:
    little = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
    return little.reshape(-1).view(np.uint8).data


def _sync(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)  # a renaming is on disk only when its folder is
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _sound(path: str | os.PathLike[str]) -> Iterator[tuple[io.BufferedReader, bytes, dict[str, Any], list[_Entry]]]:
    """The file, read up to its data; its header; __metadata__ and entries. What is wrong with it names the path."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            header = _read_header(file, size)
            yield file, header, *_check_header(header, size - 8 - len(header))
    except (CheckpointError, RecursionError) as error:  # JSON nested too deeply, to parse or to show
        raise CheckpointError(f"checkpoint {os.fspath(path)!r} refused: {error}") from error.__cause__


def _read_header(file: io.BufferedReader, size: int) -> bytes:
    if size < 8:
        raise CheckpointError(f"it is empty or truncated: {size} bytes, and 8 tell the header's length")
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if length <= min(size - 8, _MAX_HEADER) and (header := file.read(length)).startswith(b"{"):
        return header
    convert = "which can run code; if you trust it, convert it by torch.load and safetensors.torch.save_file"
    if start.startswith(b"PK\3\4"):
        raise CheckpointError(f"it is a zip archive (torch.save or np.savez wrote it), {convert}")
    if start.startswith(b"\x80") and length > _MAX_HEADER:
        raise CheckpointError(f"it is a Python pickle, {convert}")
    raise CheckpointError(f"it is truncated, damaged or no checkpoint: no {length} bytes of JSON header")


def _check_header(header: bytes, data_size: int) -> tuple[dict[str, Any], list[_Entry]]:
    """Every claim of the header held against format and file: (__metadata__, entries in file order)."""
    try:
        names = _parse(header.decode())
    except ValueError as error:
        raise CheckpointError(f"its header is not valid JSON: {error}") from error
    fields = names.pop("__metadata__", {})
    if not (isinstance(fields, dict) and all(isinstance(value, str) for value in fields.values())):
        raise CheckpointError("its __metadata__ is not a JSON object of strings")
    entries = sorted(_entry(name, value) for name, value in names.items())
    position = 0
    for begin, end, name, _, _ in entries:
        if begin != position:
            raise CheckpointError(f"tensor {name!r:.80} begins at byte {begin}, expected {position}")
        position = end
    if position != data_size:
        raise CheckpointError(f"it is truncated or damaged: {data_size} bytes of data, expected {position}")
    return fields, entries


def _entry(name: str, value: Any) -> _Entry:
    where = f"tensor {name!r:.80}"
    if problem := _name_problem(name):
        raise CheckpointError(f"the name of {where} {problem}")
    if not (isinstance(value, dict) and value.keys() == {"dtype", "shape", "data_offsets"}):
        raise CheckpointError(f"{where} must have dtype, shape and data_offsets, and nothing else")
    code, shape, span = value["dtype"], value["shape"], value["data_offsets"]
    if not (isinstance(code, str) and code in _READABLE):
        raise CheckpointError(f"{where} has dtype {code!r:.80}, expected one of {', '.join(_READABLE)}")
    if not (_naturals(shape) and len(shape) <= _MAX_NDIM):
        raise CheckpointError(f"{where} has shape {shape!r:.80}, expected up to {_MAX_NDIM} natural numbers")
    if not (_naturals(span) and len(span) == 2):
        raise CheckpointError(f"{where} has data_offsets {span!r:.80}, expected two natural numbers")
    nbytes = math.prod(shape) * np.dtype(_READABLE[code]).itemsize
    if span[1] - span[0] != nbytes:
        raise CheckpointError(f"{where}, {code} of shape {shape!r:.80}, has data_offsets {span!r:.80}")
    try:
        np.broadcast_to(np.zeros((), _READABLE[code]), shape)
    except ValueError as error:
        raise CheckpointError(f"{where} has a shape too large for NumPy") from error
    return _Entry(span[0], span[1], name, code, shape)


def _naturals(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _typed(entry: _Entry, raw: np.ndarray) -> np.ndarray:
    array = raw.view(_READABLE[entry.code])
    if entry.code == "BF16":
        array = (array.astype("<u4") << 16).view("<f4")
    if entry.code == "BOOL" and (raw > 1).any():
        raise CheckpointError(f"tensor {entry.name!r:.80} is BOOL, but has bytes other than 0 and 1")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _metadata(header: bytes, fields: dict[str, str], data: Iterable[Any]) -> dict[str, Any]:
    """The metadata given to `save`, if the checksum of header and data is right; a foreign file's __metadata__."""
    if not header.startswith(_PREFIX):
        if "tinygen_version" in fields:  # or a flipped bit in the prefix would make it a foreign file
            raise CheckpointError("tinygen wrote it, but its checksum is gone: it is damaged or was changed")
        return fields
    digest = hashlib.sha256(len(header).to_bytes(8, "little"))
    digest.update(header[: _DIGEST.start] + _ZEROS + header[_DIGEST.stop :])
    for part in data:
        digest.update(part)
    if header[_DIGEST] != digest.hexdigest().encode():
        raise CheckpointError("its checksum does not match: it is damaged or was changed")
    version = fields.get("tinygen_version")
    if version != _VERSION:
        raise CheckpointError(f"it has format version {version!r:.80}, this tinygen reads {_VERSION!r}")
    try:
        metadata = _parse(fields.get("tinygen_metadata", ""))
    except ValueError as error:
        raise CheckpointError(f"its metadata is not valid JSON: {error}") from error
    if not isinstance(metadata, dict):
        raise CheckpointError("its metadata is not a JSON object")
    return metadata
