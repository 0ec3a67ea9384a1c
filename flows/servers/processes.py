"""Processes that must not outlive us: started with a death signal, and stopped with their children."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from components.processes import parent_death


def start_child(
    command: Sequence[str], log_path: Path, env: Mapping[str, str] | None = None, pass_fds: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Start a process in its own session (Ctrl-C does not reach it) that the kernel ends when this process dies.

    Beside its standard streams it has the open files of `pass_fds`.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with open(log_path, "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", parent_death.__file__, str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **(env or {})},
            start_new_session=True,
            pass_fds=pass_fds,
        )


def stop(process: subprocess.Popen[bytes], grace_s: float = 5.0) -> None:
    """SIGTERM, then SIGKILL after a grace time; children of the process too."""
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)
        for child in [psutil.Process(process.pid), *children] if process.poll() is None else children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        process.wait()


def wait_until(check: Callable[[], object], timeout_s: float, interval_s: float = 0.2) -> bool:
    """Poll a callable until it returns true; False after the time-out."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if check():
            return True
        time.sleep(interval_s)
    return False
