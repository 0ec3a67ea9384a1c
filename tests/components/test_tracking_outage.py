"""A training beside a real MLflow server that is dead at its start, dies in the middle, and answers half a minute late.

The server stands behind a proxy of ours that can be cut or slowed: clients see what they would see of a dead or a slow one.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import pytest
import torch

from components import tracking_spool
from components.config import PipelineConfig
from components.context import StepContext
from components.tracking import open_tracking, spool_dir, start_run, tracking_client
from components.tracking_spool import replay_spools
from components.train.loader import StepWork
from components.train.loop import Hooks, train
from components.train.optimizer import ShardedAdamW
from components.train.parallel import Group
from components.train.progress import MetricsLog, record
from components.train.settings import TrainConfig
from plm_model.weights import build, initialise
from tests.components.test_tracking import Flaky
from tests.components.test_train_metrics import pack, work
from tests.components.training_set import tiny_config

LATE_SECONDS = 30.0


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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
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
    client, experiment = Flaky(tracking_client(config)), open_tracking(config)[1]
    parent = start_run(config, client, experiment, "pipeline", {})
    client.away = True
    tracker = start_run(config, client, experiment, "train", {}, parent.run_id)
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
    until(lambda: not replay_spools(client, spool_dir(config)) and not list(spool_dir(config).glob("*.jsonl")), 20)
    points = tracking_client(config).get_metric_history(tracker.run_id, "train/loss")
    assert sorted(point.step for point in points) == list(range(1, steps + 1))


@pytest.mark.e2e
def test_a_dead_dying_and_late_server_neither_slows_the_loop_nor_loses_a_point(server: int, tmp_path: Path) -> None:
    """Dead for 15 s at the start, then answering, killed at 30 s, back at 45 s but 30 s late from then to the end at 100 s."""
    proxy = Proxy(server)
    config = PipelineConfig.model_validate(
        {"tracking": {"uri": f"http://127.0.0.1:{proxy.port}", "state_dir": str(tmp_path / "state")}}
    )
    client = tracking_client(config)
    experiment = open_tracking(config)[1]
    parent = start_run(config, client, experiment, "pipeline", {})
    proxy.kill()
    tracker = start_run(config, client, experiment, "train", {}, parent.run_id)
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
    direct = PipelineConfig.model_validate({"tracking": {"uri": f"http://127.0.0.1:{server}"}})
    until(lambda: not replay_spools(client, spool_dir(config)) and not list(spool_dir(config).glob("*.jsonl")), 120)
    (run,) = tracking_client(direct).search_runs([experiment], "attributes.run_name = 'train'")
    points = tracking_client(direct).get_metric_history(run.info.run_id, "train/loss")
    assert sorted(point.step for point in points) == list(range(1, steps + 1))
    assert run.info.status == "FINISHED"
