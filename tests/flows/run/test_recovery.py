"""After a kill -9 the next start closes what the dead process left open."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from components.pipeline.config import PipelineConfig
from components.processes.identity import identity, is_alive
from components.tracking.runs import open_tracking, spool_dir, start_run, tracking_client
from components.tracking.spool import SpoolFile, locked
from flows.run import recovery
from flows.run.recovery import RunRecord, close_dead_runs, lease
from flows.servers.processes import wait_until
from tests.prefect_page import page_session


@pytest.fixture
def config(tmp_path: Path) -> PipelineConfig:
    return PipelineConfig.model_validate({"tracking": {"state_dir": str(tmp_path)}})


@pytest.fixture
def killed() -> dict[str, float]:
    """The identity of a process that is no more."""
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    process = identity(sleeper.pid)
    sleeper.send_signal(signal.SIGKILL)
    sleeper.wait()
    return process


def leave_a_lease(
    config: PipelineConfig, folder: Path, process: dict[str, float], **more: str | None
) -> tuple[str, str]:
    client = tracking_client(config.tracking)
    experiment = open_tracking(config.tracking)[1]
    parent = start_run(config.tracking, client, experiment, "parent", {})
    child = start_run(config.tracking, client, experiment, "child", {}, parent.run_id)
    (folder / "live").mkdir()
    values = {**process, "host": socket.gethostname(), "mlflow_run_id": parent.run_id, "experiment_id": experiment}
    (folder / "live" / "1.json").write_text(json.dumps({**values, **more}))
    return parent.run_id or "", child.run_id or ""


def test_runs_of_a_dead_process_become_killed(config: PipelineConfig, tmp_path: Path, killed: dict[str, float]) -> None:
    runs = leave_a_lease(config, tmp_path, killed)
    assert set(close_dead_runs(config)) == set(runs)
    client = tracking_client(config.tracking)
    assert [client.get_run(run).info.status for run in runs] == ["KILLED", "KILLED"]
    assert not list((tmp_path / "live").iterdir())


@pytest.mark.case("R1")
def test_the_flow_run_of_a_dead_process_is_closed_at_a_server_with_a_login(
    prefect_api: str, config: PipelineConfig, tmp_path: Path, killed: dict[str, float]
) -> None:
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    running = {"type": "RUNNING"}
    with contextlib.closing(page_session(prefect_api)) as page:
        flow = page.post("flows/", json={"name": "dead"}).json()["id"]
        flow_run = page.post("flow_runs/", json={"flow_id": flow, "state": running}).json()["id"]
        task = {"flow_run_id": flow_run, "task_key": "train", "dynamic_key": "0", "state": running}
        task_run = page.post("task_runs/", json=task).raise_for_status().json()["id"]
        (tmp_path / "live").mkdir()
        lease = {**killed, "host": socket.gethostname(), "prefect_flow_run_id": flow_run}
        (tmp_path / "live" / "1.json").write_text(json.dumps(lease))
        # What a process has that was started with the variables of this one; Prefect may have been imported before them.
        given = {PREFECT_API_URL: prefect_api, PREFECT_API_AUTH_STRING: os.environ["PREFECT_API_AUTH_STRING"]}
        with temporary_settings(given):
            close_dead_runs(config)
        closed = [page.get(f"flow_runs/{flow_run}").json(), page.get(f"task_runs/{task_run}").json()]
    assert [run["state_name"] for run in closed] == ["Crashed", "Crashed"]
    assert not list((tmp_path / "live").iterdir())


def waiting_child(config: PipelineConfig, parent: str) -> SpoolFile:
    """What a step leaves that started while the server was away, and whose process was killed then."""
    tags = {"mlflow.parentRunId": parent}
    create = {"experiment_id": open_tracking(config.tracking)[1], "run_name": "train", "tags": tags}
    spool = SpoolFile(spool_dir(config.tracking) / "new-1.jsonl", {"create": create})
    spool.append([["train/loss", 1.0, 5, 1]])
    return spool


def test_a_child_that_was_to_be_made_later_is_closed_too(
    config: PipelineConfig, tmp_path: Path, killed: dict[str, float]
) -> None:
    parent, _ = leave_a_lease(config, tmp_path, killed)
    waiting_child(config, parent)
    assert len(close_dead_runs(config)) == 3
    client = tracking_client(config.tracking)
    runs = client.search_runs([open_tracking(config.tracking)[1]])
    assert {run.info.run_name for run in runs} == {"parent", "child", "train"}
    assert {run.info.status for run in runs} == {"KILLED"}


def test_a_lease_stays_as_long_as_a_child_waits_to_be_made(
    config: PipelineConfig, tmp_path: Path, killed: dict[str, float], caplog: pytest.LogCaptureFixture
) -> None:
    spool = waiting_child(config, leave_a_lease(config, tmp_path, killed)[0])
    with locked(spool.path):  # it cannot be sent now
        assert close_dead_runs(config) == []
    assert "not recorded yet" in caplog.text and list((tmp_path / "live").iterdir())
    assert len(close_dead_runs(config)) == 3 and not list((tmp_path / "live").iterdir())


@pytest.mark.parametrize("used_still", [True, False])
def test_a_cluster_that_is_away_is_one_line_and_asked_again_as_long_as_it_is_used(
    config: PipelineConfig, tmp_path: Path, killed: dict[str, float], caplog: pytest.LogCaptureFixture, used_still: bool
) -> None:
    away = "http://127.0.0.1:9"
    runs = leave_a_lease(config, tmp_path, killed, prefect_flow_run_id="flow-dead", ray_address=away)
    if used_still:
        config = config.model_copy(update={"ray": config.ray.model_copy(update={"address": away})})
    assert set(close_dead_runs(config)) == set(runs)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "flows.run.recovery"]
    assert "flow-dead may still run" in line and away in line and "\n" not in line
    assert bool(list((tmp_path / "live").iterdir())) == used_still


def test_runs_of_a_live_process_stay_open(config: PipelineConfig, tmp_path: Path) -> None:
    runs = leave_a_lease(config, tmp_path, identity(os.getpid()))
    assert close_dead_runs(config) == []
    assert tracking_client(config.tracking).get_run(runs[0]).info.status == "RUNNING"


def test_a_reused_pid_is_another_process() -> None:
    assert not is_alive({**identity(os.getpid()), "started": 1.0})


@pytest.mark.parametrize(("ending", "left"), [("pass", 0), ("raise ValueError", 0), ("raise KeyboardInterrupt", 1)])
def test_a_lease_outlives_a_signal_only(config: PipelineConfig, tmp_path: Path, ending: str, left: int) -> None:
    script = (
        "import sys; from components.pipeline.config import PipelineConfig; from flows.run.recovery import lease\n"
        "config = PipelineConfig.model_validate({'tracking': {'state_dir': sys.argv[1]}})\n"
        f"with lease(config): {ending}"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], stderr=subprocess.DEVNULL)
    assert len(list((tmp_path / "live").iterdir())) == left


def leave_elsewhere(config: PipelineConfig, folder: Path, **values: object) -> tuple[str, ...]:
    """A lease of pid 1 in another pod, which has this one's host name."""
    runs = leave_a_lease(config, folder, {"pid": 1, "started": 1.0})
    path = folder / "live" / "1.json"
    held = {**json.loads(path.read_text()), "machine": "another pod", **values}
    path.write_text(json.dumps(held))
    return runs


@pytest.mark.case("R12")
def test_a_lease_of_a_pod_with_another_name_is_closed_when_it_is_not_renewed(
    config: PipelineConfig, tmp_path: Path
) -> None:
    runs = leave_elsewhere(config, tmp_path)
    assert close_dead_runs(config) == []
    path = tmp_path / "live" / "1.json"
    old = path.stat().st_mtime - recovery.STALE_SECONDS - 1
    os.utime(path, (old, old))
    assert set(close_dead_runs(config)) == set(runs)
    assert not list((tmp_path / "live").iterdir())


@pytest.mark.case("R12")
def test_two_processes_with_one_pid_have_a_lease_each(config: PipelineConfig, tmp_path: Path) -> None:
    first, second = RunRecord(tmp_path / "live"), RunRecord(tmp_path / "live")
    first.update(mlflow_run_id="a")
    second.update(mlflow_run_id="b")
    held = [json.loads(path.read_text()) for path in (tmp_path / "live").glob("*.json")]
    assert sorted(lease["mlflow_run_id"] for lease in held) == ["a", "b"] and held[0]["pid"] == held[1]["pid"]


@pytest.mark.case("R12")
def test_a_lease_is_renewed_as_long_as_it_is_held(
    config: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "RENEW_SECONDS", 0.05)
    with lease(config):
        (path,) = (tmp_path / "live").glob("*.json")
        os.utime(path, (1.0, 1.0))
        assert wait_until(lambda: path.stat().st_mtime > 1.0, 20.0)
