"""Who is named when nothing moves, and what a watchdog does about it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from components.train.model.parallel import Group
from components.train.watch import watchdog
from components.train.watch.hang_report import Heartbeat, behind, describe, end_process
from components.train.watch.watchdog import Watchdog

HEARTBEAT = Heartbeat.of_this_process(0, position=7, paused=False)


def signs(**positions: tuple[int, bool]) -> dict[int, Heartbeat]:
    return {
        int(name[1:]): replace(HEARTBEAT, rank=int(name[1:]), position=position, waiting=waiting)
        for name, (position, waiting) in positions.items()
    }


def test_the_rank_that_counted_least_is_behind() -> None:
    assert behind(signs(r0=(7, True), r1=(6, False), r2=(7, True))) == [1]


def test_of_equals_the_one_outside_a_collective_operation_is_behind() -> None:
    assert behind(signs(r0=(7, True), r1=(7, True), r2=(7, False))) == [2]


def test_nobody_is_picked_where_all_wait() -> None:
    assert behind(signs(r0=(7, True), r1=(7, True))) == [0, 1]


def test_the_report_names_the_rank_first_and_keeps_its_stack() -> None:
    text = describe(signs(r0=(7, True), r1=(6, False)), [1], [], 41.0, {0: "waits", 1: "reads a file"}.__getitem__)
    assert text.splitlines()[0] == "training has not moved for 41 s: rank 1 is behind"
    assert text.index("reads a file") < text.index("waits")


def test_only_the_process_that_spoke_is_killed() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    from components.train.watch.hang_report import process_start

    spoke = replace(HEARTBEAT, pid=child.pid, started=process_start(child.pid))
    end_process(replace(spoke, started="another process of that number"))
    assert child.poll() is None
    end_process(spoke)
    assert child.wait(10) < 0


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PERIOD_SECONDS": 0.05, "SUSPECT_SECONDS": 0.3, "STOP_SECONDS": 0.3}.items():
        monkeypatch.setattr(watchdog, name, value)


def watched(folder: Path, ended: threading.Event, **options: threading.Event) -> Watchdog:
    dog = Watchdog(Group(torch.device("cpu")), 0.2, str(folder), end=ended.set, **options)
    dog.step_done()
    return dog


def wait_here_for(event: threading.Event) -> bool:
    return event.wait(10)


def test_a_process_that_hangs_is_reported_with_its_stack_then_ended(quick: None, tmp_path: Path) -> None:
    ended = threading.Event()
    with watched(tmp_path, ended).watching():
        assert wait_here_for(ended)
    report = next(tmp_path.glob("*.txt")).read_text()
    assert "rank 0 is behind" in report.splitlines()[0] and "wait_here_for" in report and str(os.getpid()) in report


def test_steps_and_pauses_are_no_hang(quick: None, tmp_path: Path) -> None:
    ended = threading.Event()
    dog = watched(tmp_path, ended)
    with dog.watching():
        for _ in range(15):
            time.sleep(0.1)
            dog.beat()
        with dog.paused():
            time.sleep(1.5)
    assert not ended.is_set() and not list(tmp_path.iterdir())


def test_a_long_step_is_no_hang_where_steps_are_long(tmp_path: Path) -> None:
    dog = watched(tmp_path, threading.Event())
    assert dog.limit == 0.2
    dog.longest = 30.0
    assert dog.limit == 150.0


def test_the_first_steps_of_an_attempt_may_take_long(tmp_path: Path) -> None:
    dog = Watchdog(Group(torch.device("cpu")), 0.2, str(tmp_path), first_steps=2)
    limits = [dog.limit]
    for _ in range(2):
        dog.step_done()
        limits.append(dog.limit)
    dog.begin_again()
    assert limits == [2.0, 2.0, 0.2] and dog.limit == 2.0


def test_a_rank_that_is_to_stop_and_cannot_move_ends(quick: None, tmp_path: Path) -> None:
    ended, stopping = threading.Event(), threading.Event()
    dog = Watchdog(Group(torch.device("cpu")), 1000.0, str(tmp_path), stopping, end=ended.set)
    with dog.watching():
        assert not ended.wait(0.6)
        stopping.set()
        assert ended.wait(5)
