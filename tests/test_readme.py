"""The README keeps its word."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.S), ids=lambda code: code[:24])
def test_python_blocks_run(code):
    from tinygen.tape import REGISTRY

    before = set(REGISTRY)
    try:
        exec(compile(code, "README.md", "exec"), {})
    finally:
        for name in set(REGISTRY) - before:
            del REGISTRY[name]


def test_the_source_is_laid_out_as_it_says():
    tree = re.search(r"```\n(csrc/.*?)```", README, re.S).group(1)
    names = re.findall(r"^(  )?([\w.]+/?)(?:  ([\w.]+/?))?  ", tree, re.M)
    for indent, *places in names:
        for place in filter(None, places):
            path = ROOT / "tinygen" / place if indent else ROOT / place
            assert path.exists(), f"README names {path}"


def test_the_engine_is_as_small_as_it_says():
    import ast
    import io
    import tokenize

    def lines_of_code(path):
        text = path.read_text()
        documentation = set()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
                documentation |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
        blank = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
        tokens = [t for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type not in blank]
        return len({line for t in tokens for line in range(t.start[0], t.end[0] + 1)} - documentation)

    assert sum(lines_of_code(ROOT / "tinygen" / name) for name in ("_tensor.py", "tape.py", "autograd.py")) < 500
