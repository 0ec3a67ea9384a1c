"""A Ray of our own: its death is an error of the step, its token is private, and its sessions go."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from components.errors import UserError
from components.processes.local_ray import OWNER, Watch, protect_token, remove_dead_sessions, said_by


def node(process: subprocess.Popen[bytes]) -> SimpleNamespace:
    """What the watch looks at of Ray's node, over a process that sleeps."""
    return SimpleNamespace(all_processes={"raylet": [SimpleNamespace(process=process)]})


@pytest.fixture
def raylet() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "600"])


@pytest.mark.case("R8")
def test_the_end_of_rays_process_is_the_error_of_the_step_that_waits(raylet: subprocess.Popen[bytes]) -> None:
    watch = Watch(node(raylet))
    with (
        pytest.raises(
            UserError,
            match=r"preprocess: the local Ray ended by itself: its raylet is gone .*run the same command again",
        ),
        said_by("preprocess"),
        watch,
    ):
        raylet.kill()
        time.sleep(60)
    assert watch.ended == "raylet"


@pytest.mark.case("R8")
def test_a_ray_that_we_end_ourselves_is_no_error(raylet: subprocess.Popen[bytes]) -> None:
    watch = Watch(node(raylet))
    with watch:
        pass
    raylet.kill()
    raylet.wait()
    time.sleep(0.7)
    assert watch.ended is None


DEAF = """
import signal, subprocess, sys, time
from types import SimpleNamespace
from components.processes import local_ray
local_ray.DEAF_SECONDS = 0.3
local_ray.before_sudden_end.append(lambda: print("closed", flush=True))
raylet = subprocess.Popen(["sleep", "600"])
with local_ray.Watch(SimpleNamespace(all_processes={"raylet": [SimpleNamespace(process=raylet)]})):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])  # as a wait in Ray's own code
    raylet.kill()
    time.sleep(60)
"""


@pytest.mark.case("R8")
def test_a_main_thread_that_hears_nothing_is_ended_after_the_trackers_know() -> None:
    ended = subprocess.run([sys.executable, "-c", DEAF], capture_output=True, text=True, timeout=50)
    assert ended.returncode == 2 and ended.stdout == "closed\n"
    assert ended.stderr.startswith("error: the local Ray ended by itself: its raylet is gone")
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.case("R19")
def test_rays_token_is_the_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    protect_token()  # there is none yet
    (tmp_path / ".ray").mkdir()
    token = tmp_path / ".ray" / "auth_token"
    token.write_text("secret")
    token.chmod(0o644)
    protect_token()
    assert token.stat().st_mode & 0o777 == 0o600 and token.read_text() == "secret"


@pytest.mark.case("R19")
def test_sessions_of_dead_processes_go_but_for_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    mine = f"{os.getpid()} {psutil.Process().create_time()}"
    owners = {"session_1": "1 5.0", "session_2": mine, "session_3": "1 5.0", "session_4": "1 5.0", "session_5": None}
    for name, owner in owners.items():
        (tmp_path / "ray" / name).mkdir(parents=True)
        if owner:
            (tmp_path / "ray" / name / OWNER).write_text(owner)
    remove_dead_sessions()
    assert sorted(path.name for path in (tmp_path / "ray").iterdir()) == ["session_2", "session_4", "session_5"]
