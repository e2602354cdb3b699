"""A headless Chromium, spoken to over two pipes by its own protocol: all that tests of pages need, and no package.

The protocol: https://chromedevtools.github.io/devtools-protocol. Each message is JSON, ended by a zero byte.
"""

from __future__ import annotations

import base64
import fcntl
import importlib.util
import itertools
import json
import os
import select
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMES = "chromium", "chromium-browser", "google-chrome"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe", "about:blank",
)  # fmt: skip
PATIENCE = 120  # seconds that anything may take, on a busy machine


def found() -> str | None:
    """The Chromium of this machine, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def axe() -> Path | None:
    """axe-core's script, which tests whether everybody can use a page, if it is installed.

    https://github.com/dequelabs/axe-core. It comes with axe-playwright-python, of which nothing else is used.
    """
    package = importlib.util.find_spec("axe_playwright_python")
    return Path(package.submodule_search_locations[0]) / "axe.min.js" if package else None


class Browser:
    """A Chromium with one page. Use it in a `with` statement.

    Attributes:
        requests: what the page loaded, by its address.
        errors: what was thrown and not caught in the page.
        asked: the kinds of dialogs that opened; each is accepted.
    """

    def __init__(self, profile: Path) -> None:
        (near_in, self._out), (self._in, near_out) = os.pipe(), os.pipe()
        read, write = (fcntl.fcntl(end, fcntl.F_DUPFD, 100) for end in (near_in, near_out))  # out of the way of 3 and 4
        command = shlex.join([found() or NAMES[0], *FLAGS, f"--user-data-dir={profile}"])
        self._process = subprocess.Popen(
            ["bash", "-c", f"exec {command} 3<&{read} 4>&{write}"],  # where it looks for its pipes
            pass_fds=(read, write), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for end in (near_in, near_out, read, write):
            os.close(end)
        self._numbers, self._buffer, self._session = itertools.count(1), b"", None
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.asked: list[str] = []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(t["targetId"] for t in targets if t["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Accessibility"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._out)
        os.close(self._in)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command of the protocol, and its result. Raises RuntimeError if the browser refuses it."""
        number = self._send(method, **params)
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def _send(self, method: str, **params: Any) -> int:
        message: dict[str, Any] = {"id": next(self._numbers), "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        return message["id"]

    def _receive(self) -> dict[str, Any]:
        """The next message; what it tells of the page is kept."""
        while b"\0" not in self._buffer:
            if not select.select([self._in], [], [], PATIENCE)[0]:
                raise TimeoutError("the browser says nothing")
            part = os.read(self._in, 1 << 20)
            if not part:
                raise RuntimeError("the browser has ended")
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(line)
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        if message.get("method") == "Runtime.exceptionThrown":
            details = message["params"]["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        if message.get("method") == "Page.javascriptDialogOpening":
            self.asked.append(message["params"]["type"])
            self._send("Page.handleJavaScriptDialog", accept=True)
        return message

    # -- what a test does

    def open(self, page: Path) -> None:
        self.call("Page.navigate", url=page.resolve().as_uri())
        self.wait("document.readyState === 'complete'")

    def evaluate(self, code: str) -> Any:
        """The value of JavaScript in the page; a promise's when it has one. Raises RuntimeError if it throws."""
        result = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"]["exception"]["description"])
        return result["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until the condition, in JavaScript, holds."""
        self.wait_for(lambda: self.evaluate(f"!!({condition})"), condition)

    def wait_for(self, done: Callable[[], Any], what: str = "") -> None:
        """Until done() is true."""
        end = time.monotonic() + PATIENCE
        while not done():
            if time.monotonic() > end:
                raise TimeoutError(f"never became true: {what}; thrown in the page: {self.errors}")
            time.sleep(0.005)

    def press(self, key: str, code: int) -> None:
        """A key, by its name and its number on a keyboard."""
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def spoken(self) -> list[tuple[str, str]]:
        """What a screen reader finds: the role and the name of all that has one."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        seen = [n for n in nodes if not n.get("ignored") and n.get("name", {}).get("value")]
        return [(n["role"]["value"], n["name"]["value"].strip()) for n in seen]

    def serious(self, rules: list[str] | None = None) -> list[str]:
        """What axe-core finds in the page that keeps people from using it: a line for each place. rules: only these."""
        self.evaluate(f"{axe().read_text()}; 0")
        options = {"resultTypes": ["violations"]} | ({"runOnly": rules} if rules else {})
        found = self.evaluate(f"axe.run({json.dumps(options)}).then(result => result.violations)")
        return [
            f"{rule['id']} ({rule['impact']}): {node['html'][:120]}: {node['failureSummary']}"
            for rule in found if rule["impact"] in ("serious", "critical") for node in rule["nodes"]
        ]  # fmt: skip

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
