"""One process at a time makes what a key names; whoever waits says so, and what a dead process held is free."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.artifacts import lock as step_lock
from components.artifacts.artifact import Artifact, StepKey
from components.artifacts.context import StepContext
from components.artifacts.files import filesystem
from components.artifacts.lock import sole
from components.artifacts.store import ArtifactStore
from components.pipeline.config import PipelineConfig
from components.pipeline.run_step import resume_uri, run_step, shared_uri
from components.pipeline.steps import STEPS

HOLD = (
    "import sys, time; from components.artifacts.lock import sole\n"
    "with sole(sys.argv[1], print): print('held', flush=True); time.sleep(60)"
)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POLL_SECONDS", "RENEW_SECONDS", "SETTLE_SECONDS"):
        monkeypatch.setattr(step_lock, name, 0.05)


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URI of a resume folder."""
    root = str(tmp_path) if request.param == "local" else f"s3://{request.getfixturevalue('s3_bucket')}"
    return f"{root}/resume/train/0123"


def left(place: str) -> list[str]:
    fs, path = filesystem(place)
    return fs.find(path.rpartition("/")[0])


class Waiter(threading.Thread):
    """Takes the lock in a thread of its own; keeps what it was told, and whether it had it."""

    def __init__(self, place: str) -> None:
        super().__init__(daemon=True)
        self.place, self.said, self.had = place, [], threading.Event()
        self.start()

    def run(self) -> None:
        with sole(self.place, self.said.append):
            self.had.set()


def until_said(waiter: Waiter) -> None:
    deadline = time.monotonic() + 60
    while not waiter.said and time.monotonic() < deadline:
        time.sleep(0.02)


def test_the_second_waits_for_the_first_and_says_for_whom(place: str) -> None:
    with sole(place, print):
        second = Waiter(place)
        until_said(second)
        assert not second.had.wait(0.4)
        assert f"process {os.getpid()} on " in second.said[-1] and len(set(second.said)) <= 2
    assert second.had.wait(60)
    second.join()
    assert left(place) == []


def test_two_keys_do_not_wait_for_each_other(place: str) -> None:
    with sole(place, print), sole(f"{place}4", pytest.fail):
        pass


def test_what_a_killed_process_held_is_free_at_once(place: str) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, place], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    waiter = Waiter(place)
    until_said(waiter)
    assert not waiter.had.is_set() and f"process {holder.pid} on " in waiter.said[-1]
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert waiter.had.wait(60)


def foreign_lease(place: str, **more: Any) -> None:
    fs, path = filesystem(place)
    lease = {"name": "process 1 on another", "machine": "another", "pid": 1, "started": 0.0, "id": "theirs", **more}
    fs.pipe_file(f"{path}.lease", json.dumps(lease).encode())


def test_a_lease_that_is_renewed_elsewhere_is_waited_for_and_a_stale_one_taken_over(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_lock, "STALE_SECONDS", 0.6)
    place = f"s3://{s3_bucket}/resume/train/0123"
    foreign_lease(place)
    waiter = Waiter(place)
    for count in range(6):
        foreign_lease(place, renewed=count)
        assert not waiter.had.wait(0.2)
    assert waiter.had.wait(60)


def test_an_owner_that_lost_its_lease_says_so_and_leaves_it(s3_bucket: str, caplog: pytest.LogCaptureFixture) -> None:
    place = f"s3://{s3_bucket}/resume/train/0123"
    with sole(place, print):
        foreign_lease(place)
        time.sleep(0.5)
    assert "lost to process 1 on another" in caplog.text and len(left(place)) == 1


def test_a_step_that_another_run_made_meanwhile_is_not_made_again(
    tmp_path: Path, step_context: Callable[..., StepContext]
) -> None:
    """Two runs of the same training at once, each with a disk of its own for checkpoints: the second takes the first's."""
    config = PipelineConfig.model_validate({"ingest": {"source": {"kind": "digits", "limit": 3}}})
    store, other = (ArtifactStore(str(tmp_path / "runs"), tmp_path / "cache", str(tmp_path / name)) for name in "ab")
    step = STEPS["ingest"]
    key = step.key(config, {})
    said: list[str] = []
    made: list[Artifact] = []
    context = step_context(progress=said.append)
    second = threading.Thread(target=lambda: made.append(run_step(step, key, config, {}, other, context)))
    with sole(shared_uri(store, key), print):
        second.start()
        time.sleep(0.3)
        assert said and "waiting for it" in said[-1]
        with store.create(key) as out:  # what the first run makes
            out.write_json("mark.json", "first")
    second.join()
    assert made[0].read_json("mark.json") == "first"


def test_a_fresh_step_keeps_its_hands_off_the_folder_of_one_that_runs(
    tmp_path: Path, step_context: Callable[..., StepContext]
) -> None:
    config = PipelineConfig.model_validate({"ingest": {"source": {"kind": "digits", "limit": 3}}})
    store = ArtifactStore(str(tmp_path / "runs"), tmp_path / "cache")
    key = StepKey("ingest", config={"limit": 3})
    folder = Path(resume_uri(store, key))
    folder.mkdir(parents=True)
    context = step_context(fresh=True, resume_uri=str(folder))
    second = threading.Thread(target=lambda: run_step(STEPS["ingest"], key, config, {}, store, context))
    with sole(str(folder), print):
        second.start()
        time.sleep(0.3)
        assert folder.exists()
    second.join()
    assert not folder.exists() and store.find(key) is not None
