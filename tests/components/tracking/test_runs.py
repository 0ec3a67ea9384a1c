"""Tracking never stops a run and loses nothing."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from components.errors import UserError
from components.pipeline.config import PipelineConfig
from components.tracking import spool as tracking_spool
from components.tracking.runs import (
    RunTracker,
    open_tracking,
    reach,
    spool_dir,
    start_run,
    tracking_client,
    tracking_uri,
)
from components.tracking.spool import SpoolFile, locked, replay_spools
from flows.run.parent_run import open_parent


class Flaky:
    """A real client whose store can be taken away, or answer late."""

    def __init__(self, client: Any) -> None:
        self._client, self.away, self.delay = client, False, 0.0
        self.points: list[int] = []  # sent in each call

    def __getattr__(self, name: str) -> Any:
        if self.away:
            raise ConnectionError("away")
        return getattr(self._client, name)

    def log_batch(self, run_id: str, **rows: Any) -> None:
        if self.away:
            raise ConnectionError("away")
        time.sleep(self.delay)
        self.points.append(len(rows.get("metrics", ())))
        self._client.log_batch(run_id, **rows)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries and the last flush take a second, not a quarter of a minute."""
    monkeypatch.setattr(tracking_spool, "RETRY_SECONDS", 0.3)
    monkeypatch.setattr(tracking_spool, "FLUSH_SECONDS", 1.0)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> PipelineConfig:
    return PipelineConfig.model_validate({"tracking": {"state_dir": str(tmp_path_factory.mktemp("state"))}})


def history(config: PipelineConfig, run_id: str | None) -> list[int]:
    return [metric.step for metric in tracking_client(config.tracking).get_metric_history(run_id or "", "train/loss")]


def waiting(config: PipelineConfig) -> list[Path]:
    return list(spool_dir(config.tracking).glob("*.jsonl"))


def until(check: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_metrics_arrive_in_order_and_in_batches(config: PipelineConfig) -> None:
    client = Flaky(tracking_client(config.tracking))
    client.delay = 0.2
    tracker = start_run(config.tracking, client, open_tracking(config.tracking)[1], "run", {})
    for step in range(50):
        tracker.log_metrics({"train/loss": 1.0 / (step + 1)}, step)
    tracker.end("FINISHED")
    assert history(config, tracker.run_id) == list(range(50))
    assert len(client.points) < 10


def test_an_outage_costs_no_time_and_no_entry(config: PipelineConfig, tmp_path: Path) -> None:
    client = Flaky(tracking_client(config.tracking))
    tracker = start_run(config.tracking, client, open_tracking(config.tracking)[1], "outage", {})
    tracker.log_metrics({"train/loss": 1.0}, 0)
    until(lambda: client.points != [])
    client.away = True
    started = time.monotonic()
    for step in range(1, 200):
        tracker.log_metrics({"train/loss": 1.0}, step)
        tracker.tag("any", "thing")
    assert time.monotonic() - started < 1.0
    (tmp_path / "report.txt").write_text("all well")
    tracker.log_file(tmp_path / "report.txt", "reports")
    tracker.log_params({"lr": 0.1})
    tracker.end("FINISHED")
    assert waiting(config)
    client.away = False
    replay_spools(client, spool_dir(config.tracking))
    assert history(config, tracker.run_id) == list(range(200))
    run = tracking_client(config.tracking).get_run(tracker.run_id)
    assert run.info.status == "FINISHED" and run.data.tags["any"] == "thing" and run.data.params["lr"] == "0.1"
    assert [f.path for f in tracking_client(config.tracking).list_artifacts(tracker.run_id, "reports")] == [
        "reports/report.txt"
    ]
    assert not list(spool_dir(config.tracking).iterdir())


def test_a_child_whose_store_is_away_from_the_start_is_made_when_it_is_back(
    config: PipelineConfig, patient: None
) -> None:
    client = Flaky(tracking_client(config.tracking))
    experiment = open_tracking(config.tracking)[1]
    parent = start_run(config.tracking, client, experiment, "parent", {})
    client.away = True
    child = start_run(config.tracking, client, experiment, "train", {"plm.step": "train"}, parent.run_id)
    assert child.run_id is None
    child.log_metrics({"train/loss": 1.0}, 1)
    client.away = False
    until(lambda: child.run_id is not None)
    child.log_metrics({"train/loss": 0.5}, 2)
    child.end("FINISHED")
    run = tracking_client(config.tracking).get_run(child.run_id)
    assert run.info.run_name == "train" and run.data.tags["mlflow.parentRunId"] == parent.run_id
    assert history(config, child.run_id) == [1, 2] and run.info.status == "FINISHED"


def test_what_a_killed_process_could_not_send_makes_one_run_only(config: PipelineConfig, patient: None) -> None:
    """The server goes away again between making the run and taking its points."""
    client, folder = Flaky(tracking_client(config.tracking)), spool_dir(config.tracking)
    experiment = open_tracking(config.tracking)[1]
    name = f"killed-{time.time()}"
    left = SpoolFile(folder / "new-1.jsonl", {"create": {"experiment_id": experiment, "run_name": name}})
    left.append([["train/loss", 1.0, 5, 1]])
    with open(left.path, "a") as file:
        file.write('["train/loss", 0.5, 6, ')  # cut off by the kill
    client.log_batch = lambda *a, **k: (_ for _ in ()).throw(ConnectionError("gone"))  # type: ignore[method-assign]
    assert replay_spools(client, folder) == 0 and waiting(config)
    assert replay_spools(tracking_client(config.tracking), folder) == 1
    (run,) = tracking_client(config.tracking).search_runs([experiment], f"attributes.run_name = '{name}'")
    assert history(config, run.info.run_id) == [1]


def test_points_that_are_sent_twice_count_once(config: PipelineConfig) -> None:
    client = tracking_client(config.tracking)
    tracker = start_run(config.tracking, client, open_tracking(config.tracking)[1], "twice", {})
    for _ in range(2):
        for step in range(5):
            tracker.log_metrics({"train/loss": 1.0}, step, at=1000 + step)
    tracker.end("FINISHED")
    again = RunTracker(client, tracker.run_id, spool_dir(config.tracking))
    again.log_metrics({"train/loss": 1.0}, 4, at=1004)
    again.end("FINISHED")
    assert history(config, tracker.run_id) == list(range(5))


def test_a_slow_server_holds_up_nobody_and_the_rest_waits_on_disk(config: PipelineConfig, patient: None) -> None:
    client = Flaky(tracking_client(config.tracking))
    tracker = start_run(config.tracking, client, open_tracking(config.tracking)[1], "slow", {})
    client.delay = 3.0
    started = time.monotonic()
    for step in range(100):
        tracker.log_metrics({"train/loss": 1.0}, step)
    assert time.monotonic() - started < 0.5
    tracker.end("FINISHED")
    assert time.monotonic() - started < 2.0 and waiting(config)
    client.delay = 0.0
    until(lambda: not (replay_spools(tracking_client(config.tracking), spool_dir(config.tracking)) or waiting(config)))
    assert history(config, tracker.run_id) == list(range(100))


def test_the_spool_of_a_process_that_lives_is_left_to_it(config: PipelineConfig) -> None:
    path = spool_dir(config.tracking) / "alive.jsonl"
    SpoolFile(path, {"run": "0" * 32}).append([["train/loss", 1.0, 5, 1]])
    with locked(path):
        assert replay_spools(tracking_client(config.tracking), spool_dir(config.tracking)) == 0 and path.exists()
    path.unlink()


def test_what_the_server_refuses_stops_neither_the_other_points_nor_the_other_spools(config: PipelineConfig) -> None:
    client = tracking_client(config.tracking)
    tracker = start_run(config.tracking, client, open_tracking(config.tracking)[1], "refused", {})
    tracker.log_metrics({"train/loss": 1.0, "not a name: ü?": 2.0}, 1)
    tracker.end("FINISHED")
    assert history(config, tracker.run_id) == [1] and not waiting(config)
    SpoolFile(spool_dir(config.tracking) / "deleted.jsonl", {"run": "0" * 32}).append([["train/loss", 1.0, 5, 1]])
    replay_spools(client, spool_dir(config.tracking))
    assert not waiting(config)


def test_the_first_line_of_a_spool_names_its_run(config: PipelineConfig, patient: None) -> None:
    client = Flaky(tracking_client(config.tracking))
    tracker = start_run(config.tracking, client, open_tracking(config.tracking)[1], "run", {})
    client.away = True
    tracker.tag("a", "b")
    tracker.end("KILLED")
    (path,) = waiting(config)
    assert json.loads(path.read_text().splitlines()[0]) == {"run": tracker.run_id}
    replay_spools(tracking_client(config.tracking), spool_dir(config.tracking))
    assert tracking_client(config.tracking).get_run(tracker.run_id).info.status == "KILLED"


def test_a_data_set_keeps_the_manifests_digest(config: PipelineConfig, tmp_path: Path) -> None:
    client = tracking_client(config.tracking)
    tracker = start_run(config.tracking, client, open_tracking(config.tracking)[1], "run", {})
    tracker.log_dataset("digits", "s3://bucket/data", "0123456789abcdef0123456789abcdef", "training")
    tracker.end("FINISHED")
    (found,) = client.get_run(tracker.run_id).inputs.dataset_inputs
    assert found.dataset.digest == "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize("uri", ["https://me:secret@host:5000", "postgresql://host/mlflow?user=me&password=secret"])
def test_credentials_in_the_environments_uri_are_refused_and_not_repeated(
    config: PipelineConfig, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(UserError, match="MLFLOW_TRACKING_USERNAME") as error:
        tracking_uri(config.tracking)
    assert "secret" not in str(error.value)


@pytest.mark.case("E8")
@pytest.mark.parametrize("required", [True, False])
def test_an_experiment_that_was_deleted_is_one_line_with_the_way_back(
    config: PipelineConfig, required: bool, caplog: pytest.LogCaptureFixture
) -> None:
    named = {"experiment": f"deleted-{required}", "required": required}
    config = config.model_copy(update={"tracking": config.tracking.model_copy(update=named)})
    client, experiment = open_tracking(config.tracking)
    client.delete_experiment(experiment)
    line = f"tracking.experiment deleted-{required}: was deleted in MLflow; bring it back"
    if required:
        with pytest.raises(
            UserError, match=f"{line}.*mlflow experiments restore --experiment-id {experiment}"
        ) as error:
            open_parent(config, "named")
        assert "\n" not in str(error.value)
    else:
        assert open_parent(config, "named")[0].run_id is None
        assert line in caplog.text and "this run is not recorded" in caplog.text
    client.restore_experiment(experiment)
    assert open_parent(config, "named")[0].run_id


@pytest.mark.case("E8")
def test_parameters_keep_what_mlflow_takes_and_one_odd_key_costs_no_other(
    config: PipelineConfig, caplog: pytest.LogCaptureFixture
) -> None:
    client = tracking_client(config.tracking)
    tracker = start_run(config.tracking, client, open_tracking(config.tracking)[1], "params", {})
    tracker.log_params({"long": "x" * 7000, "fine": "y" * 6000, "odd ü?": "1", **{f"p{n}": n for n in range(120)}})
    tracker.end("FINISHED")
    found = client.get_run(tracker.run_id).data.params
    assert (found["long"], found["fine"]) == ("x" * 6000, "y" * 6000) and len(found) == 122
    assert "parameter odd ü? refused" in caplog.text and not waiting(config)


@pytest.mark.case("R19")
def test_a_spool_that_cannot_be_sent_holds_up_no_other(
    config: PipelineConfig, caplog: pytest.LogCaptureFixture
) -> None:
    client, folder = tracking_client(config.tracking), spool_dir(config.tracking)
    experiment = open_tracking(config.tracking)[1]
    gone = client.create_experiment(f"gone-{time.time()}")
    client.delete_experiment(gone)
    refused = SpoolFile(folder / "a.jsonl", {"create": {"experiment_id": gone, "run_name": "x"}})
    broken = SpoolFile(folder / "b.jsonl", {"create": {"unknown": experiment}})  # an error of another kind, each time
    good = SpoolFile(folder / "c.jsonl", {"create": {"experiment_id": experiment, "run_name": "good"}})
    for spool in (refused, broken, good):
        spool.append([["train/loss", 1.0, 5, 1]])
    assert replay_spools(client, folder) == 1
    assert not good.path.exists() and broken.path.exists() and (folder / "a.refused").exists()
    assert "a.refused keeps what it held" in caplog.text
    broken.path.unlink()


@pytest.mark.case("R19")
def test_the_locks_of_spools_that_are_gone_go_too(config: PipelineConfig) -> None:
    folder = spool_dir(config.tracking)
    (folder / "killed.lock").touch()
    with locked(folder / "alive.jsonl"):
        replay_spools(tracking_client(config.tracking), folder)
        assert {path.name for path in folder.glob("*.lock")} & {"killed.lock", "alive.lock"} == {"alive.lock"}
    assert not list(folder.glob("alive.*"))


def test_a_kept_connection_that_the_other_side_has_given_up_is_no_outage() -> None:
    """As behind a proxy that closes what idles: the next request on it gets no answer, one on a new connection does."""
    answers = [True, False, True]

    class Once(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if not answers.pop(0):
                self.close_connection = True
                return
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"OK")

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Once) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_address[1]}"
        reach(uri)
        reach(uri)
        server.shutdown()
    assert answers == []
