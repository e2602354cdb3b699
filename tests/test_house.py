"""Where things live: which file may use which, and how long files and functions may be."""

import ast
import functools
import graphlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MOST_LINES, A_SCREEN = 450, 60  # of a file, of a function

# --------------------------------------------------------------------------------------------------------------- csrc/

# From the top down: a file uses those in the rows below it, and none in its own row. A name stands for all files of
# that name: in C, in CUDA, and their headers.
CSRC = (
    ("recurrent", "sample"),
    ("affine", "attention", "cat", "conv", "conv_weight", "elementwise", "loss", "normalize", "optim"),
    ("matmul", "phases", "plain", "raster", "taps_weight", "winograd"),
    ("source", "taps"),
    ("columns", "mask", "narrow", "tile"),
    ("runtime/cuda", "runtime/isa", "runtime/memory", "runtime/parallel", "runtime/variants"),
    ("runtime/internal", "runtime/types"),
    ("runtime/valid", "runtime/vector"),
    ("emulator/emulator", "tinygen", "tinygen_cuda"),
)
LANGUAGES = {".c": "C", ".inc": "C", ".h": "C", ".cu": "CUDA", ".cuh": "CUDA", ".cpp": "CUDA"}
OF_EACH_LANGUAGE = {"tg_isa", "tg_set_isa", "tg_peak", "tg_fail_allocation"}  # the machine: tinygen.h's first section


def read_csrc(root: Path) -> dict[str, str]:
    """The text, without comments, of each file below a folder, by its path from there."""
    paths = (p for p in sorted(root.rglob("*")) if p.suffix in LANGUAGES)
    return {str(p.relative_to(root)): re.sub(r"/\*.*?\*/", " ", p.read_text(), flags=re.S) for p in paths}


def stem(path: str) -> str:
    return path.rsplit(".", 1)[0]


def language(path: str) -> str:
    return LANGUAGES[path[path.rindex(".") :]]


def functions(text: str) -> set[str]:
    """What a file defines for others: functions that begin at column 0, neither static nor in a nameless namespace."""
    text = re.sub(r"^namespace \{.*?^\}", "", text, flags=re.M | re.S)
    head = r"^(?!static|typedef|template|extern|INLINE|OUTLINE)\w[\w *]*?\b(\w+)\([^;{}]*\)\s*\{"
    return set(re.findall(head, text, re.M))


def calls(text: str) -> set[str]:
    """The names that stand before a bracket; prototypes, at column 0, are no calls."""
    return set(re.findall(r"(?<![\w.>])\w+(?=\()", re.sub(r"^\w[^;{}()=]*\([^;{}]*\);", "", text, flags=re.M)))


def uses(texts: dict[str, str]) -> list[tuple[str, str, str]]:
    """(file, what it does, the other file) for each file that includes another, or calls one of its functions."""
    owner = {(language(path), name): path for path, text in texts.items() for name in functions(text)}
    found = []
    for path, text in texts.items():
        for included in re.findall(r'^# *(?:include|define FAMILY) "(.*?)"', text, re.M):
            beside = str(Path(path).parent / included)
            if (other := beside if beside in texts else included) in texts:
                found.append((path, f"includes csrc/{other}", other))
        for name in sorted(calls(text) - functions(text)):
            if other := owner.get((language(path), name)):
                found.append((path, f"uses {name} of csrc/{other}", other))
    return found


def broken_order(texts: dict[str, str]) -> list[str]:
    """A sentence for each file that uses what stands above or beside it, and for each that the table doesn't know."""
    row = {name: i for i, names in enumerate(CSRC) for name in names}
    found = [f"csrc/{path} is in no row of the table" for path in texts if stem(path) not in row]
    found += [f"the table names {name}, which is not in csrc/" for name in sorted(set(row) - set(map(stem, texts)))]
    for path, what, other in uses(texts):
        above = row.get(stem(path), 0) - row.get(stem(other), len(CSRC))
        if stem(path) != stem(other) and above >= 0:
            found.append(f"csrc/{path} {what}, which stands {'above' if above else 'beside'} it")
    return found


def test_files_of_csrc_use_only_what_stands_below_them():
    assert broken_order(read_csrc(ROOT / "csrc")) == []


@pytest.mark.parametrize(
    ("path", "line", "sentence"),
    [
        ("source.c", '#include "conv.h"', "csrc/source.c includes csrc/conv.h, which stands above it"),
        ("source.c", "static void f(void) { tg_conv2d(); }",
         "csrc/source.c uses tg_conv2d of csrc/conv.c, which stands above it"),
        ("conv.cu", "static int f() { return tg_conv2d_weight(); }",
         "csrc/conv.cu uses tg_conv2d_weight of csrc/conv_weight.cu, which stands beside it"),
        ("runtime/memory.c", "static void f(void) { parallel(); }",
         "csrc/runtime/memory.c uses parallel of csrc/runtime/parallel.c, which stands beside it"),
        ("tile.inc", '#define FAMILY "loss.inc"', "csrc/tile.inc includes csrc/loss.inc, which stands above it"),
        ("pooling.c", "", "csrc/pooling.c is in no row of the table"),
    ],
)  # fmt: skip
def test_a_file_that_breaks_the_order_is_named(path, line, sentence):
    texts = read_csrc(ROOT / "csrc") | {"conv.h": ""}
    texts[path] = texts.get(path, "") + "\n" + line + "\n"
    assert broken_order(texts) == [sentence]


def test_the_order_sees_what_is_used():
    """Or it would have nothing to say."""
    seen = {f"{path} {what}" for path, what, _ in uses(read_csrc(ROOT / "csrc"))}
    for use in (
        "recurrent.c uses tg_conv2d_weight of csrc/conv_weight.c",
        "recurrent.cu uses tg_conv2d_weight of csrc/conv_weight.cu",
        "phases.c uses list_pixels of csrc/source.c",
        "source.c includes csrc/source.h",
        "loss.c includes csrc/loss.inc",
        "loss.c uses tg_isa of csrc/runtime/isa.c",
        "loss.cu uses launched of csrc/runtime/cuda.cu",
        "normalize.c uses scratch of csrc/runtime/memory.c",
        "runtime/variants.h includes csrc/runtime/types.h",
    ):
        assert use in seen


def test_a_kernel_is_in_files_of_one_name_in_c_and_cuda():
    header = (ROOT / "csrc" / "tinygen.h").read_text()
    kernels = set(re.findall(r"\b(tg_\w+)\(", header)) - OF_EACH_LANGUAGE
    homes: dict[str, dict[str, str]] = {"C": {}, "CUDA": {}}
    for path, text in read_csrc(ROOT / "csrc").items():
        homes[language(path)] |= dict.fromkeys(functions(text) & kernels, stem(path))
    assert homes["C"].keys() == kernels
    assert homes["C"] == homes["CUDA"]


def test_files_and_functions_of_csrc_are_short():
    for path in read_csrc(ROOT / "csrc"):
        lines = (ROOT / "csrc" / path).read_text().splitlines()
        assert len(lines) <= MOST_LINES, f"csrc/{path} has {len(lines)} lines"
        begin = 0
        for number, line in enumerate(lines):  # a function's braces are at column 0
            begin = number if line == "{" else begin
            assert line != "}" or not begin or number - begin < A_SCREEN, f"csrc/{path}:{begin}: a function too long"
            begin = 0 if line == "}" else begin


# ------------------------------------------------------------------------------------------------------------- tinygen/

# From the top down: a room imports from the rows below it, and none beside it; within a room no imports go in a circle.
# Imports for types alone count, and those inside functions. The README tells what the rooms are for.
TINYGEN = (
    ("__main__",),
    ("cli",),
    ("training",),
    ("learn", "report"),
    ("models",),
    ("sampling", "metrics"),
    ("baselines",),
    ("linalg", "nn", "optim"),
    ("debug", "gradcheck", "ops"),
    ("_codegen",),
    ("autograd",),
    ("tape",),
    ("modes",),
    ("_tensor",),
    ("parallel",),
    ("errors", "kernels"),
    ("console", "cuda", "data", "pool"),
    ("array", "geometry", "nvcc"),
    ("cache", "markup"),
)


def read_tinygen(root: Path) -> dict[str, str]:
    """The text of each module below a folder, by its name from there: nn.module; a package's is its name."""
    paths = (p for p in sorted(root.rglob("*.py")) if p.stem != "_cuda_abi")
    names = (
        (".".join(p.relative_to(root).with_suffix("").parts).removesuffix("__init__").rstrip("."), p) for p in paths
    )
    return {name: p.read_text() for name, p in names}


@functools.cache
def imported(text: str) -> list[tuple[str, str]]:
    """(module, name) of all that is imported from tinygen, wherever it is; name is empty for a module itself."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(node.module or "", alias.name) for alias in node.names]
    return [(m.removeprefix("tinygen").lstrip("."), name) for m, name in found if m.split(".")[0] == "tinygen"]


def arrows(texts: dict[str, str]) -> list[tuple[str, str]]:
    """(module, the module that it imports), each name of a package's face followed to where it is defined."""

    def home(module: str, name: str) -> str:
        if f"{module}.{name}".lstrip(".") in texts:
            return f"{module}.{name}".lstrip(".")
        for origin, exported in imported(texts.get(module, "")):
            if exported == name and origin != module:
                return home(origin, name)
        return module

    pairs = ((path, home(*found)) for path, text in texts.items() if path for found in imported(text))
    return [(path, other) for path, other in pairs if other in texts and other and path != other]


def broken_imports(texts: dict[str, str]) -> list[str]:
    """A sentence for each import that doesn't go down, and for each circle within a room."""
    row = {name: i for i, names in enumerate(TINYGEN) for name in names}
    rooms = {path: path.split(".")[0] for path in texts if path}
    found = [f"tinygen/{room} is in no row of the table" for room in sorted(set(rooms.values()) - set(row))]
    found += [f"the table names {name}, which is not in tinygen/" for name in sorted(set(row) - set(rooms.values()))]
    within: dict[str, set[str]] = {path: set() for path in rooms}
    for path, other in arrows(texts):
        here, there = row.get(rooms[path], -1), row.get(rooms[other], len(TINYGEN))
        if rooms[path] == rooms[other]:
            within[path].add(other)
        elif here >= there:
            found.append(f"{path} imports {other}, which stands {'above' if here > there else 'beside'} it")
    try:
        graphlib.TopologicalSorter(within).prepare()
    except graphlib.CycleError as e:
        found.append(f"imports go in a circle: {' <- '.join(e.args[1])}")
    return found


def test_modules_of_tinygen_import_only_what_stands_below_them():
    assert broken_imports(read_tinygen(ROOT / "tinygen")) == []


@pytest.mark.parametrize(
    ("module", "line", "sentence"),
    [
        ("metrics.distance", "from tinygen.models.model import Model",
         "metrics.distance imports models.model, which stands above it"),
        ("optim", "def f():\n    from tinygen import nn", "optim imports nn, which stands beside it"),
        ("_tensor", "if TYPE_CHECKING:\n    from tinygen import no_grad",
         "_tensor imports modes, which stands above it"),
        ("models.model", "import tinygen.models.gan.gan",
         "imports go in a circle: models.model <- models.gan.gan <- models.model"),
        ("attention", "", "tinygen/attention is in no row of the table"),
    ],
)  # fmt: skip
def test_an_import_that_breaks_the_order_is_named(module, line, sentence):
    texts = read_tinygen(ROOT / "tinygen")
    texts[module] = texts.get(module, "") + "\n" + line + "\n"
    found = broken_imports(texts)
    assert len(found) == 1
    assert found[0] == sentence or (sentence.startswith("imports go") and found[0].startswith("imports go in a circle"))


def test_files_and_functions_of_tinygen_are_short():
    for path in sorted((ROOT / "tinygen").rglob("*.py")):
        if path.stem == "_cuda_abi":
            continue
        text = path.read_text()
        assert len(text.splitlines()) <= MOST_LINES, f"{path} has {len(text.splitlines())} lines"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not is_table(node):
                lines = (node.end_lineno or 0) - node.lineno + 1
                assert lines <= A_SCREEN, f"{path}:{node.lineno}: {node.name} has {lines} lines"


def is_table(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether most of a function's lines are one literal: a table."""
    literals = (node for node in ast.walk(function) if isinstance(node, (ast.Dict, ast.List, ast.Tuple)))
    longest = max(((node.end_lineno or 0) - node.lineno + 1 for node in literals), default=0)
    return longest > ((function.end_lineno or 0) - function.lineno) / 2
