"""A Prefect server on loopback over the state folder's SQLite; each `plm` process has its own on the same database.

It answers its own page and whoever has the state folder's login: see `flows.prefect_door` and `flows.prefect_login`.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from components.errors import UserError
from flows.prefect_door import HOSTS, loopback_hosts
from flows.prefect_login import local_login, login_file
from flows.processes import start_child, stop, wait_until

START_SECONDS = 300.0  # a crowded machine; a server that ends by itself is seen at once

log = logging.getLogger(__name__)


class PrefectServer:
    """The API to use: one that the user named, or one of our own that ends with us.

    `start` returns at once, so that the caller can import Prefect while the server boots; `wait` waits for it.
    """

    def __init__(self, state_dir: Path, port: int | None = None) -> None:
        self.state_dir = state_dir
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._replaced: dict[str, str | None] = {}
        self.api_url = ""
        self.login = ""

    def start(self) -> None:
        if named := os.environ.get("PREFECT_API_URL"):
            self.api_url = named.rstrip("/")
            return
        self._launch()

    @property
    def ui_url(self) -> str:
        return self.api_url.removesuffix("/api")

    @property
    def ours(self) -> bool:
        """Whether this process started it."""
        return self._process is not None

    def _launch(self) -> None:
        port = self._port or free_port()
        self.api_url = f"http://127.0.0.1:{port}/api"
        self.login = local_login(self.state_dir)
        command = [
            *(sys.executable, "-m", "uvicorn", "--factory", "flows.prefect_door:create_app"),
            *("--app-dir", str(Path(__file__).resolve().parent.parent)),  # not a `flows` of the user's folder
            *("--host", "127.0.0.1", "--port", str(port), "--log-level", "error"),
        ]
        clients = {"PREFECT_API_URL": self.api_url, "PREFECT_API_AUTH_STRING": self.login}
        self._replaced = {name: os.environ.get(name) for name in clients}
        os.environ.update(clients)
        self._process = start_child(command, self._log, server_settings(port, self.login))

    @property
    def _log(self) -> Path:
        return self.state_dir / "logs" / "prefect-server.log"

    def wait(self) -> None:
        """Wait until the API answers. Raises UserError naming the log when it does not."""
        if self._process is None:
            if not wait_until(lambda: _healthy(self.api_url), 10.0):
                raise UserError(f"Prefect server {self.api_url}: does not answer; start it or unset PREFECT_API_URL")
            return _check_login(self.api_url, self.state_dir)
        process = self._process
        wait_until(lambda: _healthy(self.api_url) or process.poll() is not None, START_SECONDS)
        if not _healthy(self.api_url):
            raise UserError(f"the local Prefect server did not start; its log is {self._log}")

    def ended(self) -> bool:
        """Whether a server of our own has stopped by itself."""
        return self._process is not None and self._process.poll() is not None

    def close(self) -> None:
        if self._process is not None:
            stop(self._process)
            self._process = None
            for name, before in self._replaced.items():
                os.environ.pop(name, None)
                os.environ.update({name: before} if before is not None else {})


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


def server_settings(port: int, login: str) -> dict[str, str]:
    """Environment of a server on loopback that serves its own page, and others only with the login."""
    api_url = f"http://127.0.0.1:{port}/api"
    return {
        "PREFECT_API_URL": api_url,
        "PREFECT_UI_API_URL": api_url,
        "PREFECT_API_AUTH_STRING": login,
        "PREFECT_SERVER_API_AUTH_STRING": login,
        "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": ",".join(f"http://{host}" for host in loopback_hosts(port)),
        HOSTS: ",".join([*loopback_hosts(port), os.environ.get(HOSTS, "")]),
    }


def _healthy(api_url: str) -> bool:
    return _status(f"{api_url}/health") == 200


def _check_login(api_url: str, state_dir: Path) -> None:
    """Of a server of the user's own: whether it lets us in, with a warning when it lets in everybody."""
    page = f"{api_url}/admin/version"
    stranger = _status(page)
    if stranger == 200:
        log.warning(
            "Prefect server %s: has no login, so whoever reaches it can run code here; see `Login` in infra/README.md",
            api_url,
        )
    if stranger != 401 or os.environ.get("PREFECT_API_KEY"):  # a key is another kind of login, Prefect Cloud's
        return
    login = base64.b64encode(os.environ.get("PREFECT_API_AUTH_STRING", "").encode()).decode()
    if _status(page, {"Authorization": f"Basic {login}"}) == 401:
        raise UserError(
            f"Prefect server {api_url}: asks for a login that PREFECT_API_AUTH_STRING does not hold (that of `plm ui`: "
            f'export PREFECT_API_AUTH_STRING="$(cat {login_file(state_dir)})")'
        )


def _status(url: str, headers: Mapping[str, str] | None = None) -> int | None:
    """The status of an answer, None where there is none. A server on loopback is not asked through a proxy."""
    import httpx

    direct = httpx.URL(url).host in ("127.0.0.1", "localhost", "::1")
    try:
        return httpx.get(url, headers=headers, timeout=2, trust_env=not direct).status_code
    except httpx.HTTPError:
        return None
