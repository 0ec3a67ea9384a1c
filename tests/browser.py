"""A real browser for tests: Debian's Chromium, headless, driven by its WebDriver over plain HTTP."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.debian import debian_program
from tests.ports import free_port

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key that the W3C's protocol names
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-background-networking", "--window-size=1400,2000"]


class Browser:
    """One window. Elements are found by XPath and waited for."""

    def __init__(self, session: httpx.Client, wait_s: float = 60.0) -> None:
        self._session = session
        self._wait_s = wait_s

    def open(self, url: str) -> None:
        self._call("url", {"url": url})

    @property
    def url(self) -> str:
        return self._session.get("url").json()["value"]

    def click(self, xpath: str) -> None:
        """Click an element once it can be clicked: pages are still being drawn."""
        self._retry(lambda: self._call(f"element/{self._find(xpath)}/click", {}), f"click on {xpath}")

    def type(self, xpath: str, text: str) -> None:
        """Replace what a field holds."""
        element = self._retry(lambda: self._find(xpath), xpath)
        self._call(f"element/{element}/clear", {})
        self._call(f"element/{element}/value", {"text": text})

    def see(self, xpath: str) -> None:
        """Wait for an element."""
        self._retry(lambda: self._find(xpath), xpath)

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns."""
        return self._call("execute/sync", {"script": script, "args": list(arguments)})

    @property
    def text(self) -> str:
        """All that the page says."""
        return self.run("return document.body.innerText")

    def _find(self, xpath: str) -> str:
        return self._call("element", {"using": "xpath", "value": xpath})[ELEMENT]

    def _retry(self, action: Any, what: str) -> Any:
        deadline = time.monotonic() + self._wait_s
        while True:
            try:
                return action()
            except httpx.HTTPStatusError as error:
                if time.monotonic() > deadline:
                    raise AssertionError(f"{what}: {error.response.text[:200]}; the page: {self.text[:2000]}") from None
                time.sleep(0.2)

    def _call(self, command: str, body: dict[str, Any]) -> Any:
        return self._session.post(command, json=body).raise_for_status().json()["value"]


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser with a fresh profile below a folder; skips the test where Chromium is missing."""
    chromium, driver = debian_program("chromium"), debian_program("chromium-driver", "chromedriver")
    port = free_port()
    process = subprocess.Popen([driver, f"--port={port}", f"--log-path={folder / 'chromedriver.log'}"])
    options = {"binary": chromium, "args": [*ARGUMENTS, f"--user-data-dir={folder / 'profile'}"]}
    try:
        root = f"http://127.0.0.1:{port}"
        _wait_for(f"{root}/status")
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        made = httpx.post(f"{root}/session", json=wanted, timeout=120).raise_for_status().json()["value"]
        with httpx.Client(base_url=f"{root}/session/{made['sessionId']}/", timeout=120) as session:
            yield Browser(session)
            session.delete(f"{root}/session/{made['sessionId']}")
    finally:
        process.terminate()
        process.wait(20)


def _wait_for(url: str, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url).status_code == 200:
                return
        assert time.monotonic() < deadline, f"{url} does not answer"
        time.sleep(0.1)
