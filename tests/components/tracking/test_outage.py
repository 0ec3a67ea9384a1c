"""A training beside a real MLflow server that is dead at its start, dies in the middle, and answers half a minute late.

The server stands behind a proxy that can be cut or slowed: clients see what they would see of a dead or a slow one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from components.artifacts.context import StepContext
from components.pipeline.config import PipelineConfig
from components.tracking import spool as tracking_spool
from components.tracking.runs import open_tracking, spool_dir, start_run, tracking_client
from components.tracking.spool import replay_spools
from components.train.data.loader import StepWork
from components.train.loop import Hooks, train
from components.train.measure.metrics_log import MetricsLog, record
from components.train.model.parallel import Group
from components.train.settings import TrainConfig
from components.train.update.optimizer import ShardedAdamW
from plm_model.families.plm.model import build
from plm_model.families.plm.weights import initialise
from tests.components.tracking.test_runs import Flaky
from tests.components.train.measure.test_metrics import pack, work
from tests.components.training_set import tiny_config
from tests.mlflow_server import Proxy, until

LATE_SECONDS = 30.0


class Timed:
    """Calls a function and adds up the time spent in it."""

    def __init__(self, call: Callable[..., None]) -> None:
        self.call, self.seconds = call, 0.0

    def __call__(self, *arguments: object) -> None:
        started = time.perf_counter()
        self.call(*arguments)
        self.seconds += time.perf_counter() - started


def train_for(seconds: float, log: MetricsLog, at: dict[float, Callable[[], None]]) -> tuple[float, int]:
    """Train with a line of metrics every step; do what `at` says at its times. Share of time in tracking, and steps."""
    model = initialise(build(tiny_config()), seed=0)
    settings = TrainConfig(steps=10**6, log_every=1, lr=1e-4)
    packs, started, step = pack("captions", "digits"), time.monotonic(), 0
    due = sorted(at.items())

    def works() -> Iterator[StepWork]:
        nonlocal step
        while time.monotonic() - started < seconds:
            if due and time.monotonic() - started >= due[0][0]:
                due.pop(0)[1]()
            step += 1
            yield replace(work(packs), step=step)
            time.sleep(0.05)

    tracking = Timed(log.append)
    train(model, ShardedAdamW(model, settings), works(), settings, Group(torch.device("cpu")), Hooks(tracking))
    return tracking.seconds / (time.monotonic() - started), step


def test_a_training_goes_on_through_outages_and_all_points_arrive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test below in six seconds, with a store in this process."""
    monkeypatch.setattr(tracking_spool, "RETRY_SECONDS", 0.3)
    monkeypatch.setattr(tracking_spool, "FLUSH_SECONDS", 1.0)
    config = PipelineConfig.model_validate({"tracking": {"state_dir": str(tmp_path / "state")}})
    client, experiment = Flaky(tracking_client(config.tracking)), open_tracking(config.tracking)[1]
    parent = start_run(config.tracking, client, experiment, "pipeline", {})
    client.away = True
    tracker = start_run(config.tracking, client, experiment, "train", {}, parent.run_id)
    log = MetricsLog("", partial(record, context=StepContext(tracker, lambda text: None, tmp_path, str(tmp_path))))
    share, steps = train_for(
        6.0,
        log,
        {
            1.0: partial(setattr, client, "away", False),
            2.0: partial(setattr, client, "away", True),
            3.0: partial(setattr, client, "away", False),
            3.5: partial(setattr, client, "delay", 2.0),
        },
    )
    assert share < 0.02
    tracker.end("FINISHED")
    client.delay = 0.0
    until(
        lambda: (
            not replay_spools(client, spool_dir(config.tracking))
            and not list(spool_dir(config.tracking).glob("*.jsonl"))
        ),
        20,
    )
    points = tracking_client(config.tracking).get_metric_history(tracker.run_id, "train/loss")
    assert sorted(point.step for point in points) == list(range(1, steps + 1))


@pytest.mark.e2e
def test_a_dead_dying_and_late_server_neither_slows_the_loop_nor_loses_a_point(
    mlflow_server: int, tmp_path: Path
) -> None:
    """Dead for 15 s at the start, then answering, killed at 30 s, back at 45 s but 30 s late from then to the end at 100 s."""
    proxy = Proxy(mlflow_server)
    config = PipelineConfig.model_validate(
        {"tracking": {"uri": f"http://127.0.0.1:{proxy.port}", "state_dir": str(tmp_path / "state")}}
    )
    client = tracking_client(config.tracking)
    experiment = open_tracking(config.tracking)[1]
    parent = start_run(config.tracking, client, experiment, "pipeline", {})
    proxy.kill()
    tracker = start_run(config.tracking, client, experiment, "train", {}, parent.run_id)
    assert tracker.run_id is None
    context = StepContext(tracker, lambda text: None, tmp_path, str(tmp_path))
    log = MetricsLog("", partial(record, context=context), tmp_path / "metrics.jsonl")
    share, steps = train_for(
        100.0,
        log,
        {
            15.0: proxy.serve,
            30.0: proxy.kill,
            45.0: partial(proxy.serve, delay=LATE_SECONDS),
        },
    )
    print(f"share of the loop's time in tracking: {share:.4f}, steps {steps}")
    assert share < 0.02
    tracker.end("FINISHED")
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == steps
    proxy.serve()
    parent.end("FINISHED")
    direct = PipelineConfig.model_validate({"tracking": {"uri": f"http://127.0.0.1:{mlflow_server}"}})
    until(
        lambda: (
            not replay_spools(client, spool_dir(config.tracking))
            and not list(spool_dir(config.tracking).glob("*.jsonl"))
        ),
        120,
    )
    (run,) = tracking_client(direct.tracking).search_runs([experiment], "attributes.run_name = 'train'")
    points = tracking_client(direct.tracking).get_metric_history(run.info.run_id, "train/loss")
    assert sorted(point.step for point in points) == list(range(1, steps + 1))
    assert run.info.status == "FINISHED"
