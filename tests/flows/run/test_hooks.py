"""What Prefect calls in its worker's process for a flow run that ended without its own process."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from components.pipeline.config import PipelineConfig
from components.tracking.runs import open_tracking, start_run, tracking_client
from flows.run.hooks import note_what_to_release, release_flow_run
from flows.servers.environment import QUIET
from tests.prefect_page import page_session


@pytest.fixture
def flow_run(prefect_api: str) -> Iterator[str]:
    """A flow run of the server that Prefect's client in this process speaks to."""
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    with contextlib.closing(page_session(prefect_api)) as page:
        flow = page.post("flows/", json={"name": "hooks"}).json()["id"]
        made = page.post("flow_runs/", json={"flow_id": flow, "parameters": {"config": "gone.yaml"}}).json()["id"]
    given = {PREFECT_API_URL: prefect_api, PREFECT_API_AUTH_STRING: os.environ["PREFECT_API_AUTH_STRING"]}
    with temporary_settings(given):
        yield made


@pytest.mark.case("E1")
def test_the_hook_closes_the_runs_of_the_noted_stores_and_reads_no_config(
    flow_run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = PipelineConfig.model_validate({"tracking": {"state_dir": "stores"}})
    client = tracking_client(config.tracking)
    experiment = open_tracking(config.tracking)[1]
    run = start_run(config.tracking, client, experiment, "parent", {}).run_id or ""
    dead = {"pid": 1, "started": 1.0, "host": socket.gethostname(), "mlflow_run_id": run, "experiment_id": experiment}
    (tmp_path / "stores/live").mkdir()
    (tmp_path / "stores/live/1.json").write_text(json.dumps(dead))
    note_what_to_release(config, flow_run)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    release_flow_run(None, SimpleNamespace(id=flow_run, parameters={"config": "gone.yaml"}), None)
    monkeypatch.chdir(tmp_path)
    assert client.get_run(run).info.status == "KILLED"


def test_the_workers_process_sends_no_telemetry_and_keeps_its_own_stores(
    flow_run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a flow run that had noted nothing yet: there is nothing to release."""
    for name in (*QUIET, "PREFECT_HOME"):
        monkeypatch.delenv(name, raising=False)
    release_flow_run(None, SimpleNamespace(id=flow_run), None)
    assert {name: os.environ[name] for name in QUIET} == QUIET
    assert "PREFECT_HOME" not in os.environ
