"""A Prefect server on loopback over the state folder's SQLite; each `plm` process has its own on the same database."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

from components.errors import UserError
from flows.processes import start_child, stop, wait_until

START_SECONDS = 120.0


class PrefectServer:
    """The API to use: one that the user named, or one of our own that ends with us.

    `start` returns at once, so that the caller can import Prefect while the server boots; `wait` waits for it.
    """

    def __init__(self, state_dir: Path, port: int | None = None) -> None:
        self.state_dir = state_dir
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self.api_url = ""

    def start(self) -> None:
        if named := os.environ.get("PREFECT_API_URL"):
            self.api_url = named
            return
        self._launch()
        os.environ["PREFECT_API_URL"] = self.api_url

    @property
    def ui_url(self) -> str:
        return self.api_url.removesuffix("/api")

    def _launch(self) -> None:
        port = self._port or free_port()
        self.api_url = f"http://127.0.0.1:{port}/api"
        command = [
            *(sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"),
            *("--host", "127.0.0.1", "--port", str(port), "--log-level", "error"),
        ]
        env = {"PREFECT_API_URL": self.api_url, "PREFECT_UI_API_URL": self.api_url}
        self._process = start_child(command, self.state_dir / "logs" / "prefect-server.log", env)

    def wait(self) -> None:
        """Wait until the API answers. Raises UserError naming the log when it does not."""
        if self._process is None:
            if not wait_until(lambda: _healthy(self.api_url), 10.0):
                raise UserError(f"Prefect server {self.api_url}: does not answer; start it or unset PREFECT_API_URL")
            return
        process = self._process
        wait_until(lambda: _healthy(self.api_url) or process.poll() is not None, START_SECONDS)
        if not _healthy(self.api_url):
            log = self.state_dir / "logs" / "prefect-server.log"
            raise UserError(f"the local Prefect server did not start; its log is {log}")

    def ended(self) -> bool:
        """Whether a server of our own has stopped by itself."""
        return self._process is not None and self._process.poll() is not None

    def close(self) -> None:
        if self._process is not None:
            stop(self._process)
            os.environ.pop("PREFECT_API_URL", None)
            self._process = None


@contextlib.contextmanager
def prefect_server(state_dir: Path, port: int | None = None) -> Iterator[PrefectServer]:
    """A started server; ends with the block if this process started it."""
    server = PrefectServer(state_dir, port)
    try:
        server.start()
        yield server
    finally:
        server.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _healthy(api_url: str) -> bool:
    try:
        with urlopen(f"{api_url}/health", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False
