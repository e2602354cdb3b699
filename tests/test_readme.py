"""The README and the pages of docs/ keep their word. (The Python in docs/ runs when the site is built.)"""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
FILES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = {str(p.relative_to(ROOT)): p.read_text() for p in FILES}


def test_the_readmes_python_runs():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    exec(compile(code, "README.md", "exec"), {})


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", PAGES[name]):
        assert ((ROOT / name).parent / link).exists(), f"{name} links to {link}"


@pytest.mark.parametrize("name", PAGES)
def test_commands_exist(name):
    """Each `tinygen COMMAND` and `python -m MODULE` that a page names."""
    from tinygen.cli.main import parser

    commands = next(action.choices for action in parser()._actions if action.dest == "command")
    for command in re.findall(r"(?:^|[`/])tinygen ([a-z-]+)", PAGES[name], re.M):
        assert command in commands, f"{name} names tinygen {command}"
    for module in re.findall(r"python -m ((?:benchmarks|tests)[\w.]*)", PAGES[name]):
        path = ROOT / module.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").exists(), f"{name} names python -m {module}"


def commands(text):
    """The command lines in a page's blocks of shell."""
    for block in re.findall(r"```sh\n(.*?)```", text, re.S):
        for line in block.replace("\\\n", " ").splitlines():
            yield from re.split(r" && |; ", line.partition(" # ")[0])


@pytest.mark.parametrize("name", PAGES)
def test_command_lines_are_understood(name):
    """Each command with its flags, by the parser that would run it."""
    from tinygen.cli.main import parser

    for line in commands(PAGES[name]):
        program, *args = shlex.split(line, comments=True) or [""]
        if Path(program).name == "tinygen" and args[0] != "gradcheck":  # which has a parser of its own
            try:
                assert parser().parse_args(args).command == args[0]
            except SystemExit as e:
                raise AssertionError(f"{name}: {line}") from e


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
