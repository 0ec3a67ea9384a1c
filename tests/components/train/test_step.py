"""The step under Ray Train: one start of two workers shows all that only Ray can show."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from components.artifacts.artifact import Artifact, StepKey
from components.artifacts.context import StepContext
from components.artifacts.store import ArtifactStore
from components.errors import UserError
from components.pipeline.config import PipelineConfig
from components.train import step
from components.train.checkpoints.checkpoint import attempts, newest, read_state
from components.train.launch.ray import interruptible
from tests.components.training_set import artifact, tiny_config, write_base, write_shards

SETTINGS = {
    "steps": 6,
    "lr": 3e-3,
    "warmup_steps": 2,
    "packs_per_step": 2,
    "pack_tokens": 64,
    "checkpoint_every": 3,
    "log_every": 2,
    "workers": 2,
    "cpus_per_worker": 0.5,
    "loader_workers": 1,
}


class Recorder:
    """A tracker that keeps what it is given."""

    run_id = None

    def __init__(self) -> None:
        self.steps: dict[int, dict[str, float]] = {}

    def log_metrics(self, metrics: dict[str, float], step: int | None = None, at: int | None = None) -> None:
        self.steps[step or 0] = metrics

    def log_params(self, params: dict[str, Any]) -> None: ...

    def log_file(self, path: str | Path, folder: str | None = None) -> None: ...

    def tag(self, key: str, value: str) -> None: ...


@dataclass
class Training:
    """A finished run of the step, and what it said on the way."""

    made: Artifact
    tracker: Recorder
    said: list[str]


def train(folder: Path, on_progress: Callable[[str], None] = lambda text: None, **settings: Any) -> Training:
    """Run the step on the inputs in `folder`, and commit its artifact below it."""
    tracker, said = Recorder(), []
    inputs = {
        "shards": artifact(folder / "shards", "preprocess"),
        "base": artifact(folder / "base", "base"),
    }

    def progress(text: str) -> None:
        said.append(text)
        on_progress(text)

    context = StepContext(tracker, progress, folder, str(folder / "resume"))
    store, key = ArtifactStore(str(folder / "store"), folder / "cache"), StepKey("train")
    config = PipelineConfig.model_validate({"train": {**SETTINGS, **settings}})
    with store.create(key) as out:
        step.run(config.train, inputs, out, context)
    made = store.find(key)
    assert made is not None
    return Training(made, tracker, said)


def prepare(folder: Path) -> Path:
    write_shards(folder / "shards")
    write_base(folder / "base", tiny_config(drop_path=0.1))
    return folder


@pytest.fixture(scope="module")
def training(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Training]:
    yield train(prepare(tmp_path_factory.mktemp("training")))


def test_both_workers_write_their_part_of_the_checkpoint(training: Training) -> None:
    assert {"checkpoint/.metadata", "checkpoint/__0_0.distcp", "checkpoint/__1_0.distcp"} <= set(training.made.files)


def test_the_artifact_tells_how_training_went(training: Training) -> None:
    state = training.made.read_json("train_state.json")
    assert (state["step"], state["world_size"], state["restarts"]) == (6, 2, 0)
    assert training.made.counts["rejected"] == 0 and training.made.files["rejected.jsonl"]["size"] == 0
    assert training.made.counts["steps"] == 6 and training.made.counts["seconds_around_loop"] > 0


def test_every_line_of_metrics_is_in_the_artifact(training: Training) -> None:
    lines = [json.loads(line) for line in training.made.open("metrics.jsonl", "r")]
    assert [line["step"] for line in lines] == [1, 2, 4, 6]
    assert lines[-1]["train/loss"] < lines[0]["train/loss"]


def test_metrics_reach_the_tracker_and_the_screen(training: Training) -> None:
    assert sorted(training.tracker.steps) == [1, 2, 4, 6]
    assert {"train/loss", "train/lr", "train/tokens_per_s"} <= training.tracker.steps[6].keys()
    assert training.said[-1].startswith("step 6/6  loss ") and training.said[-1].endswith("eta 0:00")


def test_what_is_wrong_is_said_before_a_worker_starts(tmp_path: Path, step_context: Callable[..., StepContext]) -> None:
    folder = prepare(tmp_path)
    inputs = {"shards": artifact(folder / "shards", "preprocess"), "base": artifact(folder / "base", "base")}
    config = PipelineConfig.model_validate({"train": {"pack_tokens": 5}})
    with pytest.raises(UserError, match=r"example e\d+ has \d tokens, more than train.pack_tokens=5"):
        step.run(config.train, inputs, None, step_context())  # type: ignore[arg-type]


LONG = {"steps": 400, "checkpoint_every": 50, "log_every": 10}


@pytest.mark.e2e
def test_a_killed_worker_resumes_from_the_last_checkpoint(ray_cluster: None, tmp_path: Path) -> None:
    """Killed without warning in mid-run: the training ends with the losses of one that nothing happened to."""
    killed: list[int] = []

    def kill_once(text: str) -> None:
        found = re.match(r"step (\d+)/", text)
        if found and int(found[1]) >= 100 and not killed:
            killed.append(train_workers()[0])
            os.kill(killed[0], signal.SIGKILL)

    broken = train(prepare(tmp_path / "broken"), kill_once, **LONG)
    whole = train(prepare(tmp_path / "whole"), **LONG)
    assert killed and broken.made.read_json("train_state.json")["restarts"] == 1
    assert losses(broken.made) == losses(whole.made)


def train_workers() -> list[int]:
    """Process ids of the training workers of this process's Ray."""
    children = psutil.Process().children(recursive=True)
    return [process.pid for process in children if "RayTrainWorker" in " ".join(process.cmdline())]


def losses(made: Artifact) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in made.open("metrics.jsonl", "r")]
    return [(line["step"], line["train/loss"]) for line in lines]


def test_an_interrupted_call_is_told_and_has_time_to_end() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    told, ended = threading.Event(), threading.Event()

    def call() -> None:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        told.wait(10)
        time.sleep(0.3)
        ended.set()

    try:
        with pytest.raises(KeyboardInterrupt):
            interruptible(call, told.set)
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.is_set()


@pytest.mark.e2e
def test_an_interrupted_driver_lets_the_workers_write_a_checkpoint(ray_cluster: None, tmp_path: Path) -> None:
    """What `ray job stop` and Ctrl-C do to the process that runs the step: a signal that raises."""
    sent: list[float] = []

    def interrupt_once(text: str) -> None:
        if re.match(r"step [2-9]\d/", text) and not sent:
            sent.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            train(prepare(tmp_path), interrupt_once, steps=100000, checkpoint_every=100000, log_every=10)
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - sent[0] < 30
    assert read_state(newest(f"{tmp_path}/resume/checkpoints") or "")["step"] >= 20


@pytest.mark.e2e
def test_a_training_that_diverges_is_not_tried_again(ray_cluster: None, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"step \d+: loss or gradient is not a finite number .*records e\d+"):
        train(prepare(tmp_path), steps=20, lr=1e3, warmup_steps=0, log_every=1, checkpoint_every=1)
    states = [
        read_state(f"{tmp_path}/resume/checkpoints/{name}") for name in attempts(f"{tmp_path}/resume/checkpoints")
    ]
    assert all(state["restarts"] == 0 for state in states)
