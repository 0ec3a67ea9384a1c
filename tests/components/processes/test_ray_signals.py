"""A Ray of our own is out of the way of signals: those of our group do not reach it, and it takes none of ours."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import psutil
import pytest


@pytest.mark.case("E11b")
def test_rays_processes_are_not_in_our_process_group(ray_cluster: None) -> None:
    ours = os.getpgrp()
    processes = {child.name(): os.getpgid(child.pid) for child in psutil.Process().children(recursive=True)}
    ray = {name: group for name, group in processes.items() if name in ("gcs_server", "raylet")}
    assert len(ray) == 2 and ours not in ray.values() and len(set(ray.values())) == 2


@pytest.mark.case("E11")
def test_sigterm_has_the_handler_that_it_had_before_ray_started(ray_cluster: None) -> None:
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    (caught,) = re.findall(r"SigCgt:\s*(\w+)", Path("/proc/self/status").read_text())
    assert not int(caught, 16) >> (signal.SIGTERM - 1) & 1  # Ray's own would print C++ frames
