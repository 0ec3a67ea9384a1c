"""A real MLflow server, started once for the session, and a proxy that makes it dead or slow for those behind it."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from urllib.request import urlopen

import pytest


class Proxy:
    """A TCP port in front of another: `cut` refuses and breaks connections, `delay` holds back each answer."""

    def __init__(self, target: int) -> None:
        self.target, self.delay, self.cut = target, 0.0, False
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def kill(self) -> None:
        """As if the server had died: open connections break, new ones find nobody."""
        self.cut = True
        for connection in list(self._open):
            connection.close()

    def serve(self, delay: float = 0.0) -> None:
        """Let connections through, each answer so many seconds late."""
        self.cut, self.delay = False, delay

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if self.cut:
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self.target))
            self._open |= {client, server}
            threading.Thread(target=self._copy, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._copy, args=(server, client, True), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        try:
            while data := source.recv(65536):
                if answers:
                    time.sleep(self.delay)
                sink.sendall(data)
        except OSError:
            pass
        for connection in (source, sink):
            self._open.discard(connection)
            connection.close()


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """One real MLflow server; its port."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", f"{folder}/files"]
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    until(partial(answers, port), 240)
    yield port
    process.terminate()
    process.wait(20)


def answers(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def until(check: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.5)
