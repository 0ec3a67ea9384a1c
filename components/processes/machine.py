"""What of this machine is ours to use: cores by affinity and control group, GPUs by their device files."""

from __future__ import annotations

import math
import os
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")


def usable_cores(groups: Path = GROUPS, membership: Path = Path("/proc/self/cgroup")) -> int:
    """Cores that this process may use: not more than its affinity has, and than its control groups allow, rounded up.

    Worked example: a host of 64 cores, a container with a quota of 350,000 µs in each 100,000 µs: 4.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *(math.ceil(limit) for limit in _limits(groups, membership))]))


def _limits(groups: Path, membership: Path) -> list[float]:
    """The quotas, in cores, of this process's control groups and those above them (version 2, and version 1's cpu)."""
    found = []
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        top = groups if not controllers else groups / "cpu" if "cpu" in controllers.split(",") else None
        if top is None:
            continue
        inner = Path(path.lstrip("/"))
        for folder in (inner, *inner.parents):  # within a container the path may be the host's, which is not to be seen
            found += _quota(top / folder)
    return found


def _quota(folder: Path) -> list[float]:
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            words = [word for name in names for word in (folder / name).read_text().split()]
            quota, period = float(words[0]), float(words[1])
        except (OSError, ValueError, IndexError):  # not there, or `max`
            continue
        return [quota / period] if quota > 0 and period > 0 else []
    return []


def visible_gpus(devices: Path = Path("/dev")) -> int | None:
    """NVIDIA GPUs that this process sees, told without CUDA; None where another maker's may be there."""
    if (devices / "kfd").exists():
        return None
    there = sum(path.name[len("nvidia") :].isdigit() for path in devices.glob("nvidia*"))
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (
        there
        if named is None
        else min(there, len([part for part in named.split(",") if part.strip() not in ("", "-1")]))
    )
