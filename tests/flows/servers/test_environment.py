"""What is set for the tools underneath, before they are imported."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest

from components.pipeline.config import PipelineConfig
from components.tracking.runs import reach
from flows.servers.environment import RAY_ON_LOOPBACK, prepare_environment, reach_loopback_directly

LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")


def test_no_server_of_a_local_ray_listens_beyond_this_machine(ray_cluster: None) -> None:
    listening = [
        (process.name(), connection.laddr.ip)
        for process in psutil.Process().children(recursive=True)
        if any(name in " ".join(process.cmdline()) for name in ("gcs_server", "raylet", "ray::"))
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert any("raylet" in name for name, _ in listening) and any("gcs_server" in name for name, _ in listening)
    assert {address for _, address in listening} <= set(LOOPBACK), listening


@pytest.mark.parametrize(
    ("address", "inside", "local"), [(None, False, True), ("http://head:8265", False, False), (None, True, False)]
)
def test_only_a_ray_of_our_own_is_kept_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str | None, inside: bool, local: bool
) -> None:
    for name in ("PREFECT_HOME", "PREFECT_API_DATABASE_CONNECTION_URL", *RAY_ON_LOOPBACK):
        monkeypatch.setenv(name, "")
    for name in (*RAY_ON_LOOPBACK, "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    if inside:
        monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    config = {"tracking": {"state_dir": str(tmp_path)}, "ray": {"address": address}}
    prepare_environment(PipelineConfig.model_validate(config))
    assert all((os.environ.get(name) == value) is local for name, value in RAY_ON_LOOPBACK.items())


@pytest.fixture
def behind_login() -> Iterator[tuple[str, list[str]]]:
    """A server on loopback, and the logins that it was asked with."""
    logins: list[str] = []

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            logins.append(self.headers.get("Authorization", ""))
            self.send_response(200 if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *arguments: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", logins
    server.shutdown()
    server.server_close()


@pytest.mark.case("E5")
@pytest.mark.parametrize("known", ["", "intern.example", "*"])
def test_a_proxy_stands_before_no_server_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, behind_login: tuple[str, list[str]], known: str
) -> None:
    """Nothing listens at the proxy's port."""
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "" if name == "no_proxy" else "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", known)
    reach_loopback_directly()
    reach(behind_login[0])
    assert behind_login[1] == [""]
    assert os.environ["no_proxy"].split(",") == [*([known] if known else []), "127.0.0.1", "localhost", "::1"]


@pytest.mark.case("E5")
def test_without_a_proxy_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    reach_loopback_directly()
    assert "NO_PROXY" not in os.environ


@pytest.mark.case("E5")
@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"MLFLOW_TRACKING_TOKEN": "abc"}, "Bearer abc"),
        (
            {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "pass"},
            f"Basic {base64.b64encode(b'me:pass').decode()}",
        ),
    ],
)
def test_mlflow_is_asked_with_its_own_login(
    monkeypatch: pytest.MonkeyPatch, behind_login: tuple[str, list[str]], given: dict[str, str], sent: str
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    reach(behind_login[0])
    assert behind_login[1] == [sent]
