"""A plan on disk: made once on a machine, by one of its processes, and mapped by all; a folder that exists is whole.

<folder>/<digest>-<steps>/rows.u32      rows of the index, pack after pack
<folder>/<digest>-<steps>/starts.i64    where each pack starts, and the end of the last
"""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from components.train.plan import PackPlan, PlanSpec, first_packs

KEPT = 4  # plans in a folder; those used least recently go (a mapped one stays readable)
ROWS, STARTS = np.dtype("<u4"), np.dtype("<i8")


def stored_plan(spec: PlanSpec, steps: int, folder: Path) -> PackPlan:
    """The plan of so many steps, mapped from `folder`; the first of the processes that ask for it makes it."""
    place = folder / f"{spec.digest[:20]}-{steps}"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock"):
        if not place.exists():
            write(spec, steps, place)
            prune(folder, place)
        os.utime(place)
        rows = np.memmap(place / "rows.u32", ROWS, mode="r")
        starts = np.memmap(place / "starts.i64", STARTS, mode="r")
    return PackPlan(spec, rows, starts)


def write(spec: PlanSpec, steps: int, place: Path) -> None:
    """Write the plan beside `place`, chunk by chunk, and rename it there."""
    partial = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}")
    partial.mkdir()
    try:
        with open(partial / "rows.u32", "wb") as rows_file, open(partial / "starts.i64", "wb") as starts_file:
            end = 0
            starts_file.write(np.zeros(1, STARTS).data)
            for rows, sizes in first_packs(spec, steps * spec.packs_per_step):
                ends = end + np.cumsum(sizes)
                rows_file.write(rows.astype(ROWS).data)
                starts_file.write(ends.astype(STARTS).data)
                end = int(ends[-1])
        partial.rename(place)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def prune(folder: Path, newest: Path) -> None:
    """Remove the plans used least recently, and what a killed process left."""
    plans = sorted((p for p in folder.iterdir() if p.is_dir() and p != newest), key=lambda p: p.stat().st_mtime)
    abandoned = [p for p in plans if p.name.startswith(".")]
    whole = [p for p in plans if not p.name.startswith(".")]
    for place in [*abandoned, *whole[: max(0, len(whole) - KEPT + 1)]]:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Alone among the processes that lock this file; a process that ends, however, gives its lock back."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
