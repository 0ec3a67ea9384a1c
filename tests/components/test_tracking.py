"""Tracking never stops a run and loses nothing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from components.config import PipelineConfig
from components.tracking import open_tracking, replay_spools, spool_dir, start_run, tracking_client


class Flaky:
    """A real client whose store can be taken away."""

    def __init__(self, client: Any) -> None:
        self._client, self.away = client, False

    def __getattr__(self, name: str) -> Any:
        if self.away:
            raise ConnectionError("away")
        return getattr(self._client, name)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> PipelineConfig:
    return PipelineConfig.model_validate({"tracking": {"state_dir": str(tmp_path_factory.mktemp("state"))}})


def history(config: PipelineConfig, run_id: str) -> list[int]:
    return [metric.step for metric in tracking_client(config).get_metric_history(run_id, "train/loss")]


def test_metrics_arrive_in_order(config: PipelineConfig) -> None:
    client = tracking_client(config)
    tracker = start_run(config, client, open_tracking(config)[1], "run", {})
    for step in range(50):
        tracker.log_metrics({"train/loss": 1.0 / (step + 1)}, step)
    tracker.end("FINISHED")
    assert history(config, tracker.run_id or "") == list(range(50))


def test_an_outage_costs_no_time_and_no_points(config: PipelineConfig) -> None:
    client = Flaky(tracking_client(config))
    tracker = start_run(config, client, open_tracking(config)[1], "outage", {})
    tracker.log_metrics({"train/loss": 1.0}, 0)
    time.sleep(0.5)
    client.away = True
    started = time.monotonic()
    for step in range(1, 200):
        tracker.log_metrics({"train/loss": 1.0}, step)
        tracker.tag("any", "thing")
    assert time.monotonic() - started < 1.0
    tracker.end("FINISHED")
    assert (spool_dir(config) / f"{tracker.run_id}.jsonl").exists()
    client.away = False
    replay_spools(client, spool_dir(config))
    assert history(config, tracker.run_id or "") == list(range(200))
    run = tracking_client(config).get_run(tracker.run_id)
    assert run.info.status == "FINISHED" and run.data.tags["any"] == "thing"


def test_a_data_set_keeps_the_manifests_digest(config: PipelineConfig, tmp_path: Path) -> None:
    client = tracking_client(config)
    tracker = start_run(config, client, open_tracking(config)[1], "run", {})
    tracker.log_dataset("digits", "s3://bucket/data", "0123456789abcdef0123456789abcdef", "training")
    tracker.end("FINISHED")
    (found,) = client.get_run(tracker.run_id).inputs.dataset_inputs
    assert found.dataset.digest == "0123456789abcdef0123456789abcdef"
