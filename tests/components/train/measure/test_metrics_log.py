"""Lines of metrics: first to a file, then to whoever listens, and none of them stops the training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.artifacts.context import StepContext
from components.train.folder import TrainingFolder
from components.train.measure.metrics_log import MetricsLog, describe, record

LINE = {"train/loss": 0.5312345678, "train/lr": 1e-3, "train/tokens_per_s": 4210.0, "train/eta_s": 70.0}


def test_a_line_is_in_the_file_before_it_is_sent(tmp_path: Path) -> None:
    live, seen = tmp_path / "metrics.jsonl", []
    log = MetricsLog("", lambda line: seen.append((line["step"], live.read_text().count("\n"))), live)
    log.append(10, LINE)
    log.append(20, LINE)
    assert seen == [(10, 1), (20, 2)] and live.read_text() == log.text
    assert json.loads(log.text.splitlines()[0])["train/loss"] == 0.531235


def test_a_resumed_log_begins_with_what_the_checkpoint_holds(tmp_path: Path) -> None:
    live = tmp_path / "metrics.jsonl"
    first = MetricsLog("", None, live)
    first.append(1, LINE)
    kept = first.text
    first.append(2, LINE)
    again = MetricsLog(kept, None, live)
    again.append(2, {"val/loss": 0.6})
    assert [json.loads(line)["step"] for line in live.read_text().splitlines()] == [1, 2]
    assert again.last == {"step": 2, "time": again.last["time"], "val/loss": 0.6}


def test_neither_a_full_disk_nor_a_lost_listener_stops_the_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    def lost(line: dict[str, Any]) -> None:
        raise ConnectionError("gone")

    log = MetricsLog("", lost, tmp_path / "file" / "metrics.jsonl")
    log.append(1, LINE)
    log.append(2, LINE)
    assert log.text.count("\n") == 2


def test_object_stores_have_no_live_file() -> None:
    assert TrainingFolder("s3://bucket/run").live_metrics is None
    assert TrainingFolder("/data/run").live_metrics == Path("/data/run/metrics.jsonl")


def test_lines_are_told_in_words() -> None:
    told = describe({"step": 120, **LINE}, 700)
    assert told == "step 120/700  loss 0.531  lr 1.0e-03  4.2k tok/s  eta 1:10"
    assert describe({"step": 120, "val/loss": 0.61}, 700) == "step 120/700  val loss 0.610"


@pytest.mark.case("R6")
def test_what_is_said_in_words_is_shown_and_its_number_tracked(step_context: Callable[..., StepContext]) -> None:
    lines: list[dict[str, Any]] = []
    MetricsLog("", lines.append).append(120, {"train/failed_checkpoints": 2}, "no checkpoint of step 120")
    assert describe(lines[0], 700) == "step 120/700  no checkpoint of step 120"
    context = step_context()
    record(lines[0], context)
    assert context.tracker.metrics == {"train/failed_checkpoints": 2.0}


def test_the_tracker_gets_the_time_of_the_measurement(step_context: Callable[..., StepContext]) -> None:
    given: list[tuple[dict[str, float], int | None, int | None]] = []

    class Tracker:
        run_id = None

        def log_metrics(self, metrics: dict[str, float], step: int | None = None, at: int | None = None) -> None:
            given.append((metrics, step, at))

    record({"step": 5, "time": 1234, "val/loss": 0.5}, step_context(tracker=Tracker()))
    assert given == [({"val/loss": 0.5}, 5, 1234)]
