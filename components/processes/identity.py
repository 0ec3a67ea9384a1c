"""What names a process of this machine for good: its pid and when it started."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psutil


def identity(pid: int | None = None) -> dict[str, float]:
    """Pid and start time of a process, by default this one."""
    process = psutil.Process(pid)
    return {"pid": process.pid, "started": process.create_time()}


def is_alive(process: Mapping[str, Any]) -> bool:
    """Whether the process of an `identity` still runs; a zombie does not, and what names no process is none."""
    try:
        found = psutil.Process(int(process["pid"]))
        same = abs(found.create_time() - float(process["started"])) < 1.0
        return bool(same and found.status() != psutil.STATUS_ZOMBIE)
    except (psutil.NoSuchProcess, KeyError, ValueError, TypeError):
        return False
