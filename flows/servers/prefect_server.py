"""A Prefect server on loopback over the state folder's SQLite; each `plm` process has its own on the same database.

It answers its own page and whoever has the state folder's login: see `prefect_door` and `prefect_login`.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

from filelock import BaseFileLock, FileLock

from components.errors import UserError
from flows.servers.prefect_door import HOSTS, loopback_hosts
from flows.servers.prefect_login import local_login, login_file
from flows.servers.processes import start_child, stop, wait_until

MAX_RESTARTS = 5  # of a server that ends by itself
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
        self._socket: socket.socket | None = None
        self._turn: BaseFileLock | None = None
        self._guard, self._answered, self._given_up = threading.Lock(), False, False
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
        self._socket = listening(self._port or 0)
        port = self._socket.getsockname()[1]
        self.api_url = f"http://127.0.0.1:{port}/api"
        self.login = local_login(self.state_dir)
        clients = {"PREFECT_API_URL": self.api_url, "PREFECT_API_AUTH_STRING": self.login}
        self._replaced = {name: os.environ.get(name) for name in clients}
        os.environ.update(clients)
        self._turn = first_start(self.state_dir)
        self._process = self._start_process()
        threading.Thread(target=self._watch, name="prefect server", daemon=True).start()

    def _start_process(self) -> subprocess.Popen[bytes]:
        """Start the server on our own socket: while it is started again, its clients wait there instead of being refused."""
        assert self._socket is not None
        port, number = self._socket.getsockname()[1], self._socket.fileno()
        command = [sys.executable, str(Path(__file__).with_name("prefect_child.py")), str(number)]
        return start_child(command, self._log, server_settings(port, self.login), pass_fds=(number,))

    def _watch(self) -> None:
        """Start the server again when it ends by itself, on the same port, MAX_RESTARTS times.

        A thread of its own for as long as the server lives: what it started ends with it.
        """
        restarts = 0
        while (process := self._process) is not None:
            process.wait()
            with self._guard:
                if self._process is not process or not self._answered:
                    return  # closed by us, or it never came up: `wait` says so
                if restarts == MAX_RESTARTS:
                    log.warning("the local Prefect server ended %d times; its log is %s", restarts + 1, self._log)
                    self._given_up = True
                    return
                restarts += 1
                log.warning("the local Prefect server ended (status %s); it is started again", process.returncode)
                self._process = self._start_process()

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
        self._answered = True
        started(self.state_dir, self._turn)
        self._turn = None

    def ended(self) -> bool:
        """Whether a server of our own has stopped by itself, for good."""
        return self._process is not None and self._process.poll() is not None and (self._given_up or not self._answered)

    def close(self) -> None:
        if self._turn is not None:
            self._turn.release()
        if self._process is not None:
            with self._guard:
                process, self._process = self._process, None
            stop(process)
            if self._socket is not None:
                self._socket.close()
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


def listening(port: int) -> socket.socket:
    """A socket on loopback that connections wait at until a server takes them. UserError where the port is taken."""
    try:
        return socket.create_server(("127.0.0.1", port), backlog=512)
    except OSError as error:
        raise UserError(f"port {port} on 127.0.0.1: {error.strerror}; name another one") from None


def first_start(state_dir: Path) -> BaseFileLock | None:
    """Wait until no other process makes or upgrades the database of this folder; then it is this one's turn.

    The lock is held; None where the database is known to be of this version of Prefect.
    """
    if _version_file(state_dir).exists() and _version_file(state_dir).read_text() == version("prefect"):
        return None
    state_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(state_dir / ".prefect.db.lock", thread_local=False)
    with contextlib.suppress(OSError):  # a file system without locks
        lock.acquire()
    return lock


def started(state_dir: Path, turn: BaseFileLock | None) -> None:
    """Note that the database is whole, and let the next one start."""
    if turn is not None:
        _version_file(state_dir).write_text(version("prefect"))
        turn.release()


def _version_file(state_dir: Path) -> Path:
    return state_dir / ".prefect.db.version"


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
