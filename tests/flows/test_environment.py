"""What is set for the tools underneath, before they are imported."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from components.config import PipelineConfig
from flows.environment import RAY_ON_LOOPBACK, prepare_environment

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
