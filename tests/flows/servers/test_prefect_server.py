"""The local Prefect server is watched: it comes back on its port, and who asks meanwhile waits instead of failing."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

from components.errors import UserError
from flows.servers import prefect_server
from flows.servers.prefect_server import PrefectServer, first_start, listening, started
from flows.servers.processes import wait_until


@pytest.mark.case("R8")
def test_a_killed_server_comes_back_on_its_port_and_no_request_is_refused(
    own_prefect_server: PrefectServer, caplog: pytest.LogCaptureFixture
) -> None:
    killed, url = own_prefect_server._process, own_prefect_server.api_url
    assert killed is not None
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    answer = httpx.get(f"{url}/health", timeout=110, trust_env=False)  # at once: it waits at the socket
    assert answer.status_code == 200 and own_prefect_server.api_url == url
    assert own_prefect_server._process is not killed and not own_prefect_server.ended()
    assert "the local Prefect server ended (status -9); it is started again" in caplog.text


@pytest.mark.case("R3")
def test_two_first_starts_of_a_server_wait_for_each_other(tmp_path: Path) -> None:
    """The database is made by one; the second finds it whole. A killed start gives its turn back: the lock is a file's."""
    turn, order = first_start(tmp_path), []

    def second() -> None:
        started(tmp_path, first_start(tmp_path))
        order.append("second")

    waiting = threading.Thread(target=second)
    waiting.start()
    time.sleep(0.3)
    order.append("first")
    started(tmp_path, turn)
    waiting.join(20)
    assert order == ["first", "second"] and first_start(tmp_path) is None


def test_a_port_that_is_taken_is_one_line() -> None:
    with listening(0) as taken, pytest.raises(UserError, match=r"port \d+ on 127.0.0.1: .* name another one"):
        listening(taken.getsockname()[1])


@pytest.mark.case("R8")
def test_a_server_that_ends_again_and_again_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess
    import sys

    server = PrefectServer(tmp_path)
    starts: list[subprocess.Popen[bytes]] = []

    def ends() -> subprocess.Popen[bytes]:
        starts.append(subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"]))
        return starts[-1]

    monkeypatch.setattr(server, "_start_process", ends)
    server._process, server._answered = ends(), True
    server._watch()
    assert len(starts) == 1 + prefect_server.MAX_RESTARTS and wait_until(server.ended, 10.0)
