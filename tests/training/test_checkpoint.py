"""Checkpoints: what comes back, what is refused, and what an interruption leaves behind."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import pickle
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinygen.training import checkpoint
from tinygen.training.checkpoint import CheckpointError, load, save

MANY = 100 if os.environ.get("TINYGEN_FULL") == "1" else 1  # times the examples of the fuzzers
KILLS = 10
CODES = {"float64": "F64", "float32": "F32", "float16": "F16", "bool": "BOOL"}
CODES |= {f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)}
CODES |= {f"uint{bits}": f"U{bits}" for bits in (8, 16, 32, 64)}

OLD = {"w": np.arange(12, dtype=np.float32).reshape(3, 4), "step": np.array(3)}
NEW = {"w": np.full((300, 400), 7.0, np.float32), "b": np.ones(5), "step": np.array(4)}

# What safetensors 0.8.0's PyTorch writer makes of six tensors, byte for byte.
FOREIGN = (
    b"x\x01\x00\x00\x00\x00\x00\x00"
    b'{"__metadata__":{"format":"pt"},"step":{"dtype":"I64","shape":[],"data_offsets":[0,8]},'
    b'"none":{"dtype":"F64","shape":[0,3],"data_offsets":[8,8]},'
    b'"w":{"dtype":"F32","shape":[2,2],"data_offsets":[8,24]},'
    b'"half":{"dtype":"F16","shape":[2],"data_offsets":[24,28]},'
    b'"\xc3\xa4":{"dtype":"I16","shape":[2],"data_offsets":[28,32]},'
    b'"mask":{"dtype":"BOOL","shape":[3],"data_offsets":[32,35]}}  '
    b"\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\xc0?\x00\x00\x00\xc0\x00\x00@@\x00\x00\x80@"
    b"\x00<\x00\xc1\x01\x00\x02\x00\x01\x00\x01"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


def framed(header: str | bytes, data: bytes = b"") -> bytes:
    """A .safetensors file, from the format's description alone."""
    raw = header.encode() if isinstance(header, str) else header
    return len(raw).to_bytes(8, "little") + raw + data


def sealed(tensors: str, data: bytes = b"", version: str = '"1"', metadata: str = "{}") -> bytes:
    """A file with a *right* checksum around any tensors, so that what is behind the checksum is reached."""
    own = f'"tinygen_sha256":"{"0" * 64}","tinygen_version":{version},"tinygen_metadata":{json.dumps(metadata)}'
    file = framed(f'{{"__metadata__":{{{own}}}{"," * bool(tensors)}{tensors}}}', data)
    return file.replace(b"0" * 64, hashlib.sha256(file).hexdigest().encode(), 1)


def write_and_load(path: Path, file: bytes) -> tuple[dict[str, np.ndarray], dict]:
    path.write_bytes(file)
    return load(path)


def refused(path: Path, file: bytes) -> str:
    """The one-line reason for which the file is refused, checked to name it."""
    with pytest.raises(CheckpointError) as caught:
        write_and_load(path, file)
    message = str(caught.value)
    assert message.startswith(f"checkpoint {str(path)!r} refused: ")
    assert "\n" not in message
    assert len(message) < 600
    return message


def assert_same(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        native = array.astype(array.dtype.newbyteorder("="))
        assert actual[name].shape == array.shape
        assert actual[name].dtype == native.dtype
        assert actual[name].dtype.isnative
        assert actual[name].tobytes() == native.tobytes(), name  # NaNs too, bit by bit
        assert actual[name].flags.c_contiguous
        assert actual[name].flags.writeable


LAYOUTS = {
    "as it is": lambda a: a,
    "Fortran": np.asfortranarray,
    "transposed": lambda a: a.T,
    "reversed": lambda a: a[(*(slice(None, None, -1),) * a.ndim, ...)],
    "every second": lambda a: a[(*(slice(None, None, 2),) * a.ndim, ...)],
    "broadcast": lambda a: np.broadcast_to(a, (2, *a.shape)),
    "unaligned": lambda a: np.ndarray(a.shape, a.dtype, b"x" + a.tobytes(), offset=1),
}
DTYPES = [np.dtype(name).newbyteorder(order) for name in CODES for order in "<>"]
NAMES = st.text(max_size=8).filter(lambda name: name.isprintable() and ".." not in name and name[:1] != "/")
ARRAYS = st.builds(
    lambda array, layout: LAYOUTS[layout](array),
    hnp.arrays(st.sampled_from(DTYPES), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)),
    st.sampled_from(list(LAYOUTS)),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
METADATA = st.dictionaries(st.text(max_size=5), JSON, max_size=4)


@pytest.mark.fault("R06")
@settings(deadline=None)
@given(tensors=st.dictionaries(NAMES, ARRAYS, max_size=5), metadata=METADATA)
def test_what_is_saved_comes_back(folder, tensors, metadata):
    before = {name: array.tobytes() for name, array in tensors.items()}
    path = folder / "roundtrip.safetensors"
    save(path, tensors, metadata)
    loaded, metadata_loaded = load(path)
    assert_same(loaded, tensors)
    arrays, outlined = checkpoint.outline(path)
    assert {n: (a.shape, a.dtype) for n, a in arrays.items()} == {n: (a.shape, a.dtype) for n, a in loaded.items()}
    assert not any(array.any() for array in arrays.values())
    assert metadata_loaded == outlined == metadata
    assert json.dumps(metadata_loaded, sort_keys=True) == json.dumps(metadata, sort_keys=True)  # 1, 1.0, True
    assert {name: array.tobytes() for name, array in tensors.items()} == before

    file = path.read_bytes()
    save(path, dict(reversed(tensors.items())), metadata)
    assert path.read_bytes() == file  # the same values, the same bytes, in whatever order they come


@settings(deadline=None)
@given(tensors=st.dictionaries(NAMES, ARRAYS, max_size=5))
def test_the_file_is_what_the_format_asks_for(folder, tensors):
    path = folder / "format.safetensors"
    save(path, tensors, {"a": 1})
    file = path.read_bytes()
    length = int.from_bytes(file[:8], "little")
    text = file[8 : 8 + length].decode()
    header, data = json.loads(text), file[8 + length :]
    assert length % 8 == 0
    assert text.rstrip(" ") == json.dumps(header, ensure_ascii=False, separators=(",", ":"))
    own = header.pop("__metadata__")
    assert own.keys() == {"tinygen_sha256", "tinygen_version", "tinygen_metadata"}
    assert (own["tinygen_version"], json.loads(own["tinygen_metadata"])) == ("1", {"a": 1})
    zeroed = file.replace(own["tinygen_sha256"].encode(), b"0" * 64, 1)
    assert own["tinygen_sha256"] == hashlib.sha256(zeroed).hexdigest()

    assert header.keys() == tensors.keys()
    position = 0
    for name, entry in header.items():
        little = tensors[name].astype(tensors[name].dtype.newbyteorder("<"))
        assert entry["dtype"] == CODES[little.dtype.name]
        assert entry["shape"] == list(little.shape)
        assert entry["data_offsets"] == [position, position + little.nbytes]
        assert position % little.itemsize == 0
        assert data[position : position + little.nbytes] == little.tobytes()
        position += little.nbytes
    assert position == len(data)


def test_a_file_of_the_safetensors_package_loads(folder):
    tensors, metadata = write_and_load(folder / "foreign.safetensors", FOREIGN)
    expected = {
        "step": np.array(7),
        "none": np.zeros((0, 3)),
        "w": np.array([[1.5, -2.0], [3.0, 4.0]], np.float32),
        "half": np.array([1.0, -2.5], np.float16),
        "ä": np.array([1, 2], np.int16),
        "mask": np.array([True, False, True]),
    }
    assert_same(tensors, expected)
    assert metadata == {"format": "pt"}


def test_offsets_alone_say_where_a_tensor_is(folder):
    late = '"late":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}'
    early = '"early":{"dtype":"I8","shape":[],"data_offsets":[0,1]}'
    tensors, _ = write_and_load(folder / "order.safetensors", framed(f"{{{late},{early}}}", b"\xff\2\3"))
    assert {name: array.tolist() for name, array in tensors.items()} == {"early": -1, "late": [2, 3]}
    assert list(tensors) == ["early", "late"]


def test_tensors_are_laid_out_as_the_safetensors_package_does(folder):
    """Our header's entries and data are the package's, byte for byte; only __metadata__ differs."""
    path = folder / "layout.safetensors"
    tensors, _ = write_and_load(path, FOREIGN)
    save(path, dict(sorted(tensors.items())), {})
    for part, foreign_part in zip(
        re.split(rb"},|}} *", path.read_bytes())[1:], re.split(rb"},|}} *", FOREIGN)[1:], strict=True
    ):
        assert part == foreign_part


@given(bits=hnp.arrays(np.uint16, 20))
def test_bfloat16_widens_to_the_float32_with_the_same_leading_bits(folder, bits):
    file = framed('{"h":{"dtype":"BF16","shape":[4,5],"data_offsets":[0,40]}}', bits.astype("<u2").tobytes())
    tensors, metadata = write_and_load(folder / "bf16.safetensors", file)
    assert metadata == {}
    assert tensors["h"].dtype == np.float32
    np.testing.assert_array_equal(tensors["h"].view(np.uint32).ravel(), bits.astype(np.uint32) * 2**16)


@pytest.mark.fault("R05")
def test_a_bool_is_0_or_1(folder):
    entry = '{"m":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}}'
    assert write_and_load(folder / "bool.safetensors", framed(entry, b"\0\1"))[0]["m"].tolist() == [
        False,
        True,
    ]
    for byte in range(2, 256):
        assert "is BOOL, but" in refused(folder / "bool.safetensors", framed(entry, bytes([1, byte])))


# Bad arguments


@pytest.mark.fault("R06")
@pytest.mark.parametrize(
    "array",
    [
        np.zeros(2, np.complex64),
        np.array([None]),
        np.array(["a"]),
        np.array([b"a"]),
        np.zeros(2, np.longdouble),
        np.zeros(2, "M8[s]"),
        np.zeros(2, "f4,i4"),
        np.zeros(2, "V4"),
    ],
    ids=lambda array: str(array.dtype),
)
def test_other_dtypes_are_refused_by_tensor_and_dtype(tmp_path, array):
    save(tmp_path / "c", OLD, {})
    before = (tmp_path / "c").read_bytes()
    with pytest.raises(TypeError, match=re.escape(f"tensors['layer.w'] has dtype {array.dtype}, expected one of")):
        save(tmp_path / "c", {"ok": np.ones(3), "layer.w": array}, {})
    assert (tmp_path / "c").read_bytes() == before
    assert os.listdir(tmp_path) == ["c"]


@pytest.mark.parametrize("value", [1.0, [1.0], np.float32(1), None, b"bytes"], ids=repr)
def test_what_is_no_array_is_refused(tmp_path, value):
    with pytest.raises(TypeError, match=rf"tensors\['w'\] must be a NumPy array, not {type(value).__name__}"):
        save(tmp_path / "c", {"w": value}, {})
    assert os.listdir(tmp_path) == []


BAD_NAMES = [
    "__metadata__",
    "/etc/passwd",
    "../up",
    "a/../b",
    "a\\..\\b",
    "..",
    "a\n",
    "\0",
    "\ud800",
    "\x1b[1m",
]


@pytest.mark.fault("R05")
@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_bad_names_are_refused_on_both_sides(tmp_path, name):
    with pytest.raises(ValueError, match=r"tensors: the name .* (is|looks)"):
        save(tmp_path / "c", {name: np.ones(1)}, {})
    assert os.listdir(tmp_path) == []
    tensors = f'{json.dumps(name)}:{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
    if name != "__metadata__":  # there it is a duplicate key
        assert re.search("the name of tensor .* (is|looks)", refused(tmp_path / "c", sealed(tensors, b"\1")))


@pytest.mark.parametrize("name", [3, ("a",), None], ids=repr)
def test_names_must_be_text(tmp_path, name):
    with pytest.raises(ValueError, match="is not printable text"):
        save(tmp_path / "c", {name: np.ones(1)}, {})


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


CYCLE: dict = {}
CYCLE["self"] = CYCLE
BAD_METADATA = {
    "a list": [1],
    "text": "{}",
    "nothing": None,
    "number as key": {1: "a"},
    "key twice": {1: "a", "1": "b"},
    "tuple": {"betas": (0.9, 0.99)},
    "array": {"a": np.ones(2)},
    "NumPy number": {"a": np.float32(1)},
    "NaN": {"loss": float("nan")},
    "infinity": {"loss": float("inf")},
    "cycle": CYCLE,
    "too deep": {"a": nested(100_000)},
}


@pytest.mark.parametrize("metadata", BAD_METADATA.values(), ids=BAD_METADATA)
def test_metadata_that_json_would_change_is_refused(tmp_path, metadata):
    with pytest.raises(ValueError, match="metadata must be a dict"):
        save(tmp_path / "c", OLD, metadata)
    assert os.listdir(tmp_path) == []


def test_a_header_beyond_the_formats_limit_is_refused(tmp_path, monkeypatch):
    save(tmp_path / "c", OLD, {"a": "x" * 1000})
    monkeypatch.setattr(checkpoint, "_MAX_HEADER", 1000)
    with pytest.raises(ValueError, match=r"header of 1[0-9]{3} bytes"):
        save(tmp_path / "d", OLD, {"a": "x" * 1000})
    assert os.listdir(tmp_path) == ["c"]
    with pytest.raises(CheckpointError, match=r"no 1[0-9]{3} bytes of JSON header"):
        load(tmp_path / "c")


# Damage


@pytest.fixture(scope="module")
def sound(folder) -> bytes:
    save(folder / "sound.safetensors", OLD | {"text": np.frombuffer(b"  }  {  ", np.uint8)}, {"model": "vae"})
    return (folder / "sound.safetensors").read_bytes()


@pytest.mark.fault("R04")
def test_every_single_bit_matters(folder, sound):
    for bit in range(8 * len(sound)):
        file = bytearray(sound)
        file[bit // 8] ^= 1 << bit % 8
        refused(folder / "flipped.safetensors", bytes(file))


@pytest.mark.fault("R04")
def test_every_truncation_is_refused(folder, sound):
    for size in range(len(sound)):
        message = refused(folder / "truncated.safetensors", sound[:size])
        assert "truncated" in message
    assert "0 bytes" in refused(folder / "truncated.safetensors", b"")


@pytest.mark.fault("R04")
@given(begin=st.integers(0, 2000), length=st.integers(0, 40), patch=st.binary(max_size=40))
def test_a_patched_file_is_refused(folder, sound, begin, length, patch):
    begin = min(begin, len(sound))
    file = sound[:begin] + patch + sound[begin + length :]
    assume(file != sound)
    refused(folder / "patched.safetensors", file)


def test_a_file_that_shrinks_while_it_is_read(folder, sound, monkeypatch):
    path = folder / "shrinking.safetensors"
    path.write_bytes(sound[:-3])
    monkeypatch.setattr(checkpoint.os, "fstat", lambda _: SimpleNamespace(st_size=len(sound)))
    with pytest.raises(CheckpointError, match="its checksum does not match"):
        checkpoint.outline(path)
    with pytest.raises(CheckpointError, match="it became shorter"):
        load(path)


def test_a_file_that_is_not_there_is_an_os_error_with_its_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "none"))):
        load(tmp_path / "none")
    with pytest.raises(IsADirectoryError, match=re.escape(str(tmp_path))):
        load(tmp_path)


# Malice

W = '"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
DEEP = "[" * 50_000 + "]" * 50_000
MALFORMED = {
    "hole at the start": (
        '"w":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}',
        "begins at byte 4, expected 0",
    ),
    "hole": (
        '"v":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"w":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}',
        "tensor 'w' begins at byte 4, expected 3",
    ),
    "overlap": (W + "," + W.replace("w", "v"), "begins at byte 0, expected 8"),
    "data left over": ('"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}', "8 bytes of data, expected 4"),
    "out of range": ('"w":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}', "8 bytes of data, expected 12"),
    "enormous": (
        '"w":{"dtype":"U8","shape":[1099511627776],"data_offsets":[0,1099511627776]}',
        "8 bytes of data, expected 1099511627776",
    ),
    "backwards": (
        '"w":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}',
        r"of shape \[2\], has data_offsets \[8, 0\]",
    ),
    "shape too small": (W.replace("[2]", "[1]"), r"F32 of shape \[1\], has data_offsets \[0, 8\]"),
    "another dtype": (W.replace("F32", "F64"), r"F64 of shape \[2\], has data_offsets"),
    "overflow of 64 bits": (W.replace("[2]", "[4294967296,4294967296,2]"), "has data_offsets"),
    "negative size": (
        W.replace("[2]", "[-2]"),
        "tensor 'w' has shape .-2., expected up to 64 natural numbers",
    ),
    "two negative sizes": (W.replace("[2]", "[-1,-2]"), "has shape"),
    "too many dimensions": (
        W.replace("[2]", f"[2{',1' * 64}]"),
        "has shape .*expected up to 64 natural numbers",
    ),
    "size beyond 64 bits": (W.replace("8]", "0]").replace("[2]", f"[0,{2**63}]"), "has shape"),
    "size as float": (W.replace("[2]", "[2.0]"), "has shape"),
    "size as bool": (W.replace("[2]", "[2,true]"), "has shape"),
    "shape as number": (W.replace("[2]", "2"), "has shape"),
    "shape nested": (W.replace("[2]", "[[2]]"), "has shape"),
    "one offset": (W.replace("[0,8]", "[8]"), r"has data_offsets \[8\], expected two natural numbers"),
    "three offsets": (W.replace("[0,8]", "[0,8,8]"), "expected two natural numbers"),
    "negative offset": (W.replace("[0,8]", "[-8,0]"), "expected two natural numbers"),
    "offsets as text": (W.replace("[0,8]", '"08"'), "expected two natural numbers"),
    "too large for NumPy": (
        W + f',"z":{{"dtype":"U8","shape":[0,{2**62},{2**62}],"data_offsets":[8,8]}}',
        "tensor 'z' has a shape too large for NumPy",
    ),
    "unknown dtype": (W.replace("F32", "F8_E4M3"), "tensor 'w' has dtype 'F8_E4M3', expected one of U64"),
    "dtype as list": (W.replace('"F32"', "[]"), r"has dtype \[\]"),
    "object dtype": (W.replace("F32", "|O"), "has dtype"),
    "Python's name of a dtype": (W.replace("F32", "<f4"), "has dtype"),
    "not a bool": (
        '"m":{"dtype":"BOOL","shape":[8],"data_offsets":[0,8]}',
        "'m' is BOOL, but has bytes other than",
    ),
    "no entry": ('"w":null', "tensor 'w' must have dtype, shape and data_offsets, and nothing else"),
    "no dtype": ('"w":{"shape":[2],"data_offsets":[0,8]}', "must have dtype"),
    "something else": (W.replace("}", ',"order":"F"}'), "and nothing else"),
    "a name twice": (W + "," + W, "not valid JSON: duplicate key 'w'"),
    "shape twice": (W.replace("}", ',"shape":[2]}'), "duplicate key 'shape'"),
    "metadata twice": ('"__metadata__":{}', "duplicate key '__metadata__'"),
    "nested too deep": (f'"w":{DEEP}', "recursion"),
    "an endless number": (W.replace("[2]", f"[{'9' * 10_000}]"), "not valid JSON"),
    "not JSON": (W + ";", "not valid JSON"),
    "more after the end": (W + "}{", "not valid JSON"),
}


@pytest.mark.fault("R05")
@pytest.mark.parametrize(("tensors", "reason"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_header_is_refused_even_with_a_right_checksum(folder, tensors, reason):
    path = folder / "malformed.safetensors"
    data = bytes(range(8))
    assert write_and_load(path, sealed(W, data))[0]["w"].tobytes() == data
    assert re.search(reason, refused(path, sealed(tensors, data)))
    assert re.search(reason.replace("duplicate key '__metadata__'", ""), refused(path, framed(f"{{{tensors}}}", data)))


@pytest.mark.fault("R14")
def test_the_metadata_of_another_version_or_of_no_sense_is_refused(folder):
    path = folder / "fields.safetensors"
    assert write_and_load(path, sealed("")) == ({}, {})
    assert "it has format version '2', this tinygen reads '1'" in refused(path, sealed("", version='"2"'))
    assert "not a JSON object of strings" in refused(path, sealed("", version="1"))
    for metadata in ("", "{", "{'a': 1}", '{"a":1,"a":2}'):
        assert "its metadata is not valid JSON" in refused(path, sealed("", metadata=metadata))
    for metadata in ("[]", "null", "3"):
        assert "its metadata is not a JSON object" in refused(path, sealed("", metadata=metadata))
    assert "recursion" in refused(path, sealed("", metadata=DEEP))
    for header in ('{"__metadata__":[]}', '{"__metadata__":{"a":1}}', '{"__metadata__":null}'):
        assert "__metadata__ is not a JSON object of strings" in refused(path, framed(header))
    without = sealed("").replace(b',"tinygen_metadata":"{}"', b"")[8:]
    assert "checksum does not match" in refused(path, framed(without))
    assert "checksum is gone" in refused(path, framed('{"__metadata__":{"tinygen_version":"1"}}'))


@pytest.mark.fault("R05")
def test_a_header_is_utf8_and_starts_with_a_brace(folder):
    path = folder / "text.safetensors"
    assert write_and_load(path, framed("{}   ")) == ({}, {})
    assert "not valid JSON: 'utf-8'" in refused(path, framed(b'{"\xff":1}'))
    for header in (b"", b" {}", b"[]", b"\xef\xbb\xbf{}", "{}".encode("utf-16"), b"3"):
        assert "bytes of JSON header" in refused(path, framed(header))


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.fault("R05")
def test_pickles_and_zips_are_named_and_never_opened(tmp_path):
    path, trap = tmp_path / "evil.safetensors", tmp_path / "trap"
    for protocol in range(6):
        message = refused(path, pickle.dumps(Payload(trap), protocol))
        assert protocol < 2 or ("a Python pickle, which can run code" in message and "save_file" in message)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Payload(trap)))
        archive.writestr("bomb", bytes(20_000_000))
    assert "a zip archive" in refused(path, path.read_bytes())
    with open(path, "wb") as file:
        np.savez(file, w=np.array([Payload(trap)], dtype=object))
    assert "torch.load and safetensors.torch.save_file" in refused(path, path.read_bytes())
    assert not trap.exists()
    truncated = refused(path, framed(b"{" + b" " * 0x027F)[:-1])  # starts with 80 02 as pickles do
    assert "no 640 bytes of JSON header" in truncated


@pytest.mark.fault("R05")
def test_memory_is_bounded_by_the_files_size(folder):
    path = folder / "greedy.safetensors"
    huge = f'"w":{{"dtype":"U8","shape":[{2**40}],"data_offsets":[0,{2**40}]}}'
    files = [
        (2**62).to_bytes(8, "little") + b"{}",
        (99_999_999).to_bytes(8, "little") + b"{}",
        sealed(huge, b"12345678"),
        framed("{" + '"a":' + "[" + "[]," * 100_000 + "[]]}"),
        framed('{"w":{"dtype":"U8","data_offsets":[0,1],"shape":[' + "9" * 18 + ("," + "9" * 18) * 10_000 + "]}}"),
    ]
    for file in files:
        path.write_bytes(file)
        tracemalloc.start()
        with pytest.raises(CheckpointError):
            load(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 200_000 + 40 * len(file)
    save(path, {"w": np.zeros(1_000_000)}, {})
    tracemalloc.start()
    load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.1 * 8_000_000


def test_a_header_over_the_limit_is_not_even_read(folder):
    path = folder / "sparse.safetensors"
    path.write_bytes((100_000_001).to_bytes(8, "little") + b"{")
    os.truncate(path, 200_000_000)
    tracemalloc.start()
    with pytest.raises(CheckpointError, match="no 100000001 bytes of JSON header"):
        load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    path.unlink()
    assert peak < 1_000_000


@pytest.mark.fault("R05")
@given(file=st.binary(max_size=200))
def test_random_bytes_are_refused(folder, file):
    path = folder / "random.safetensors"
    refused(path, file[:8])
    for attempt in (file, framed(file), framed(b"{" + file)):
        with contextlib.suppress(CheckpointError):
            assert write_and_load(path, attempt)[0] == {}  # {} is a header, too


EVIL = (
    JSON
    | st.sampled_from([-1, 0, 1, 8, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63), 1e308, True, None])
    | st.sampled_from(["F32", "BF16", "BOOL", "U64", "O", "", "../w", "__metadata__"])
    | st.lists(st.integers(-1, 9), max_size=5)
)


@st.composite
def mutated_headers(draw) -> dict:
    """A sound header with one to three of its nodes replaced, removed or renamed."""
    header = json.loads(
        '{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"U8","shape":[],"data_offsets":[24,25]},'
        '"c":{"dtype":"BF16","shape":[0,4],"data_offsets":[25,25]},"d":{"dtype":"BOOL","shape":[7],"data_offsets":[25,32]}}'
    )
    for _ in range(draw(st.integers(1, 3))):
        node = header
        while node:
            key = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
            if not isinstance(node[key], dict | list) or draw(st.integers(0, 2)) == 0:
                break
            node = node[key]
        if node:
            action = draw(st.sampled_from(["replace", "replace", "remove", "rename"]))
            value = draw(EVIL) if action == "replace" else node.pop(key)
            if action == "replace":
                node[key] = value
            elif action == "rename" and isinstance(node, dict):
                node[draw(st.sampled_from(["dtype", "shape", "data_offsets", "a", "__metadata__", "..", ""]))] = value
    return header


@pytest.mark.fault("R05")
@settings(max_examples=500 * MANY, deadline=None)
@given(header=mutated_headers(), with_checksum=st.booleans())
def test_a_mutated_header_is_refused_or_means_what_it_says(folder, header, with_checksum):
    data = bytes([1] * 32)
    text = json.dumps(header)
    file = sealed(text[1:-1], data) if with_checksum else framed(text, data)
    path = folder / "mutated.safetensors"
    path.write_bytes(file)
    try:
        tensors, _ = load(path)
    except CheckpointError:
        return
    header.pop("__metadata__", None)
    assert tensors.keys() == header.keys()
    sizes = [array.nbytes // (2 if header[name]["dtype"] == "BF16" else 1) for name, array in tensors.items()]
    assert sum(sizes) == len(data)
    for name, array in tensors.items():
        assert list(array.shape) == header[name]["shape"]
        assert header[name]["dtype"] in ("BF16", CODES[array.dtype.name])


# Interruption


def assert_holds(path: Path, tensors: dict[str, np.ndarray], metadata: dict) -> None:
    loaded, loaded_metadata = load(path)
    assert_same(loaded, tensors)
    assert loaded_metadata == metadata
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.fault("R03")
@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), MemoryError()]
)
def test_a_failure_leaves_the_old_checkpoint_and_nothing_else(tmp_path, monkeypatch, call, error):
    path = tmp_path / "c.safetensors"
    save(path, OLD, {"step": 3})

    def fail(*_):
        raise error

    monkeypatch.setattr(checkpoint.os, call, fail)
    with pytest.raises(type(error)) as caught:
        save(path, NEW, {"step": 4})
    if isinstance(error, OSError):
        message = str(caught.value)
        assert message == f"[Errno 28] cannot save the checkpoint: No space left on device: {str(path)!r}"
        assert caught.value.errno == errno.ENOSPC
    assert_holds(path, OLD, {"step": 3})


@pytest.mark.fault("R03")
def test_a_disk_that_takes_no_more_bytes(tmp_path):
    path = tmp_path / "c.safetensors"
    save(path, OLD, {"step": 3})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))  # the kernel itself makes write() fail
    try:
        with pytest.raises(OSError, match=rf"cannot save the checkpoint: .*{re.escape(str(path))}"):
            save(path, NEW, {"step": 4})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert_holds(path, OLD, {"step": 3})


@pytest.mark.fault("R03")
def test_a_folder_that_cannot_be_written(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cannot save the checkpoint: .*none/c"):
        save(tmp_path / "none" / "c", OLD, {})
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match=r"cannot save the checkpoint: .*folder'"):
        save(tmp_path / "folder", OLD, {})
    assert os.listdir(tmp_path) == ["folder"]

    readonly = Path(tempfile.mkdtemp())  # below no folder that only root may enter
    try:
        save(readonly / "c", OLD, {})
        readonly.chmod(0o555)
        user = os.geteuid()
        os.seteuid(user or 65534)  # root may write anywhere
        try:
            with pytest.raises(PermissionError, match="cannot save the checkpoint: Permission denied"):
                save(readonly / "c", NEW, {})
        finally:
            os.seteuid(user)
        assert_holds(readonly / "c", OLD, {})
    finally:
        readonly.chmod(0o755)
        shutil.rmtree(readonly)


@pytest.mark.fault("R09")
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_at_any_line_leaves_a_whole_checkpoint_and_nothing_else(tmp_path):
    """KeyboardInterrupt raised on reaching the first, the second, ... line that save executes."""
    path = tmp_path / "c.safetensors"
    outcomes = []
    for line in range(10_000):
        save(path, OLD, {"step": 3})
        left = [line]

        def interrupt(frame, event, _, left=left):
            if event == "line" and frame.f_code.co_filename == checkpoint.__file__:
                left[0] -= 1
                if left[0] < 0:
                    sys.settrace(None)
                    raise KeyboardInterrupt
            return interrupt

        def attempt(interrupt=interrupt):
            sys.settrace(interrupt)
            save(path, NEW, {"step": 4})

        with ThreadPoolExecutor(1) as thread:  # whose end ends what Python takes for the exception being handled
            interrupted = isinstance(thread.submit(attempt).exception(), KeyboardInterrupt)
        step = load(path)[1]["step"]
        assert_holds(path, *((OLD, {"step": 3}) if step == 3 else (NEW, {"step": 4})))
        outcomes.append(step)
        if not interrupted:
            break
    assert outcomes == sorted(outcomes)  # the old one up to the renaming, the new one after it
    assert outcomes.count(3) > 30
    assert outcomes[-1] == 4


SAVER = """
import sys, numpy as np
from tinygen.training.checkpoint import save
for step in range(1, 10**9):
    save(sys.argv[1], {"w": np.full(1 + step * 7919 % 200_000, step)}, {"step": step})
    print(step, flush=True)
"""


@pytest.mark.fault("R02")
def test_kill_9_at_any_moment_leaves_the_last_checkpoint(tmp_path):
    rng = np.random.default_rng()
    path = tmp_path / "c.safetensors"
    for _ in range(KILLS):
        command = [sys.executable, "-c", SAVER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "1\n"
            time.sleep(rng.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
            acknowledged = ["1", *process.stdout.read().split("\n")[:-1]]
        tensors, metadata = load(path)
        assert metadata["step"] in (int(acknowledged[-1]), int(acknowledged[-1]) + 1)
        np.testing.assert_array_equal(tensors["w"], np.full(1 + metadata["step"] * 7919 % 200_000, metadata["step"]))
    assert all(re.fullmatch(r"c\.safetensors|\.tinygen-[0-9a-f]{16}\.tmp", name) for name in os.listdir(tmp_path))


def test_threads_that_save_to_one_path_do_not_mix(tmp_path):
    path = tmp_path / "c.safetensors"
    errors = []

    def work(value):
        try:
            for _ in range(5):
                save(path, {"w": np.full(50_000, value)}, {"value": value})
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    value = load(path)[1]["value"]
    assert_holds(path, {"w": np.full(50_000, value)}, {"value": value})


def test_the_data_is_on_disk_before_the_name_is_and_the_name_before_save_returns(tmp_path, monkeypatch):
    calls = []
    written = []
    fsync, replace = os.fsync, os.replace

    def sync(descriptor):
        calls.append("sync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")
        written.extend(path.read_bytes() for path in tmp_path.glob(".tinygen-*"))
        fsync(descriptor)

    def rename(source, target):
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr(checkpoint.os, "fsync", sync)
    monkeypatch.setattr(checkpoint.os, "replace", rename)
    save(tmp_path / "c", NEW, {})
    assert calls == ["sync file", "rename", "sync folder"]
    assert written == [(tmp_path / "c").read_bytes()]


def test_paths_and_permissions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mask = os.umask(0o027)
    try:
        for path in ("plain", Path("with space é"), str(tmp_path / "absolute")):
            save(path, OLD, {})
            assert_same(load(path)[0], OLD)
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o640
    finally:
        os.umask(mask)
    assert len(os.listdir()) == 3
