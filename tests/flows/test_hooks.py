"""What Prefect calls in its worker's process for a flow run that ended without its own process."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows.environment import QUIET
from flows.hooks import release_flow_run


def test_the_workers_process_sends_no_telemetry_and_keeps_its_own_stores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*QUIET, "PREFECT_HOME"):
        monkeypatch.delenv(name, raising=False)
    flow_run = SimpleNamespace(id="1", parameters={"config": {"tracking": {"state_dir": str(tmp_path)}}})
    release_flow_run(None, flow_run, None)
    assert {name: os.environ[name] for name in QUIET} == QUIET
    assert "PREFECT_HOME" not in os.environ
