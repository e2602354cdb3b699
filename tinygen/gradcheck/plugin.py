"""The pytest plugin: a fixture, a marker, and plain files as tests.

def test_mine(gradcheck):                       # the fixture
    gradcheck(conv_forward, conv_backward, (x, w, b, {"stride": 1, "pad": 1}))
    gradcheck(lambda x: x.tanh(), (x,))         # a function of tensors

@pytest.mark.gradcheck(forward, backward)       # the marker: the test only returns the arguments
def test_theirs():
    return x, w, b

pytest --gradcheck layers.py                    # every gradient in a plain file is a test
pytest -m gradcheck                             # all of the above
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tinygen.gradcheck.report import GradcheckError, GradcheckReport


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gradcheck", "gradient checks (tinygen)")
    group.addoption(
        "--gradcheck",
        action="store_true",
        help="collect the gradients in plain Python files: X_forward with X_backward, losses, layers, models, ops",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "gradcheck(forward, backward): check this pair on the arguments that the test returns; or (fn)"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "gradcheck" in getattr(item, "fixturenames", ()):
            item.add_marker("gradcheck")


def run_check(*args: Any, **options: Any) -> GradcheckReport:
    """gradcheck(forward, backward, args), gradcheck(loss, None, args) or gradcheck(fn, inputs); raises if wrong."""
    __tracebackhide__ = True
    from tinygen import gradcheck

    if len(args) == 3 and args[1] is None:
        return gradcheck.check_loss(args[0], args[2], **options).raise_if_wrong()
    if len(args) == 3:
        return gradcheck.check_pair(*args, **options).raise_if_wrong()
    return gradcheck.check(*args, **options)


@pytest.fixture(name="gradcheck")
def _gradcheck() -> Callable[..., GradcheckReport]:
    """gradcheck(forward, backward, args) or gradcheck(fn, inputs): fails with the report if a gradient is wrong."""
    return run_check


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    __tracebackhide__ = True
    marker = pyfuncitem.get_closest_marker("gradcheck")
    if marker is None or not marker.args:
        return None
    names = pyfuncitem._fixtureinfo.argnames
    args = pyfuncitem.obj(**{n: pyfuncitem.funcargs[n] for n in names})
    run_check(*marker.args, args if isinstance(args, tuple) else (args,), **marker.kwargs)
    return True


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if (
        parent.config.getoption("--gradcheck")
        and file_path.suffix == ".py"
        and not file_path.name.startswith(("test_", "conftest"))
    ):
        text = file_path.read_text(errors="replace")
        if any(word in text for word in ("backward", "loss", "vjp")):
            return GradcheckFile.from_parent(parent, path=file_path)
    return None


class GradcheckFile(pytest.File):
    """A plain Python file with gradients."""

    def collect(self) -> Iterator[pytest.Item]:
        from tinygen.gradcheck.targets import load, targets

        for target in targets(load(self.path)):
            item = GradcheckItem.from_parent(self, name=target.name, target=target)
            item.add_marker("gradcheck")
            yield item


class GradcheckItem(pytest.Item):
    """One gradient of a plain file."""

    def __init__(self, *, target: Any, **rest: Any) -> None:
        super().__init__(**rest)
        self.target = target

    def runtest(self) -> None:
        from tinygen.gradcheck.command import check_target

        check_target(self.target).raise_if_wrong()

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, GradcheckError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, f"gradcheck: {self.name}"
