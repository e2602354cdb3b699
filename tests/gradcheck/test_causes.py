"""The table of causes: a bug in one of its rows surfaces, a refusal of the function under test doesn't."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest

import tinygen
from tinygen.gradcheck import check_pair
from tinygen.gradcheck.causes import table

X = np.random.default_rng(0).standard_normal((3, 4))
ROOM = Path(tinygen.gradcheck.__file__).parent


def test_a_bug_in_a_row_surfaces(monkeypatch):
    def buggy(e, s):
        yield {}["no such key"]

    monkeypatch.setattr(table, "TABLE", [("buggy", buggy), *table.TABLE])
    assert check_pair(lambda x: (x * x, x), lambda dout, x: 2 * dout * x, (X,))
    with pytest.raises(KeyError, match="no such key"):
        check_pair(lambda x: (x * x, x), lambda dout, x: dout * x, (X,))


def test_a_backward_that_refuses_another_upstream_gradient_is_still_explained():
    first = []

    def picky(dout, x):
        first.append(np.linalg.norm(dout))
        if first[-1] > 1.5 * first[0]:
            raise KeyError("a large upstream gradient")
        return dout * x

    report = check_pair(lambda x: (x * x, x), picky, (X,))
    assert report.cause == "factor", str(report)


def test_a_function_of_tensors_that_refuses_smaller_shapes_is_still_explained():
    def only_twelve(x):
        if x.shape != (3, 4):
            raise KeyError(x.shape)
        return x * tinygen.tensor(x.numpy())

    with pytest.raises(tinygen.gradcheck.GradcheckError, match="dx: factor: yours is 1/2"):
        tinygen.gradcheck.check(only_twelve, (X,))


def test_each_file_imports_only_files_before_it():
    """In the order that the room's docstring states."""
    text = (ROOM / "__init__.py").read_text()
    order = re.findall(r"^    (\w+)/?  ", ast.get_docstring(ast.parse(text), clean=False), re.M)
    order = order[order.index("numeric") :]
    kinds = ["guess", "misshapen", "upstream", "arrangement", "factors", "terms", "elements", "table"]
    assert {p.stem for p in ROOM.glob("*.py")} == {*order} - {"causes"}
    assert {p.stem for p in (ROOM / "causes").glob("*.py")} == {*kinds, "__init__"}
    places = {f"tinygen.gradcheck.{name}": k for k, name in enumerate(order)} | {
        f"tinygen.gradcheck.causes.{name}": order.index("causes") + k / 10 for k, name in enumerate(kinds)
    }
    places["tinygen.gradcheck"] = order.index("__init__")
    for path in ROOM.rglob("*.py"):
        own = ".".join(("tinygen.gradcheck", *path.relative_to(ROOM).with_suffix("").parts)).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{a.name}" for a in node.names]
                used = [n if n in places else node.module for n in names if (n in places or node.module in places)]
                assert all(places[u] < places[own] for u in used), (own, used)
