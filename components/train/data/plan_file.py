"""A plan on disk: made once on a machine, by one of its processes, and mapped by all; a folder that exists is whole.

Each process compares it with its sums before it maps it; one that differs is made anew.

<folder>/<digest>-<steps>/rows.u32      rows of the index, pack after pack
<folder>/<digest>-<steps>/starts.i64    where each pack starts, and the end of the last
<folder>/<digest>-<steps>/sums.json     {size, sha256} of each
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from components.artifacts.sums import difference
from components.train.data.plan import PackPlan, PlanSpec, first_packs

log = logging.getLogger(__name__)
KEPT = 4  # plans in a folder; those used least recently go (a mapped one stays readable)
ROWS_FILE, STARTS_FILE, SUMS_FILE = "rows.u32", "starts.i64", "sums.json"
ROWS, STARTS = np.dtype("<u4"), np.dtype("<i8")


def stored_plan(spec: PlanSpec, steps: int, folder: Path) -> PackPlan:
    """The plan of so many steps, mapped from `folder`; the first of the processes that ask for it makes it."""
    place = folder / f"{spec.digest[:20]}-{steps}"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if place.exists() and (problem := damage(place)):
            log.warning("%s: %s: the plan is made anew", place, problem)
            shutil.rmtree(place)  # whoever has mapped it keeps it
        if not place.exists():
            write(spec, steps, place)
            prune(folder, place)
        os.utime(place)
        rows = np.memmap(place / ROWS_FILE, ROWS, mode="r")
        starts = np.memmap(place / STARTS_FILE, STARTS, mode="r")
    return PackPlan(spec, rows, starts)


def write(spec: PlanSpec, steps: int, place: Path) -> None:
    """Write the plan beside `place`, chunk by chunk, and rename it there."""
    partial = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}")
    partial.mkdir()
    try:
        with HashedFile(partial / ROWS_FILE) as rows_file, HashedFile(partial / STARTS_FILE) as starts_file:
            end = 0
            starts_file.write(np.zeros(1, STARTS).data)
            for rows, sizes in first_packs(spec, steps * spec.packs_per_step):
                ends = end + np.cumsum(sizes)
                rows_file.write(rows.astype(ROWS).data)
                starts_file.write(ends.astype(STARTS).data)
                end = int(ends[-1])
        sums = {file.path.name: file.entry for file in (rows_file, starts_file)}
        (partial / SUMS_FILE).write_text(json.dumps(sums))
        partial.rename(place)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


class HashedFile:
    """A new local file, with the size and the sum of what was written to it."""

    def __init__(self, path: Path) -> None:
        self.path, self.entry = path, dict[str, Any]()
        self._sha = hashlib.sha256()
        self._file = open(path, "wb")  # noqa: SIM115  closed by __exit__

    def __enter__(self) -> HashedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.entry |= {"size": self._file.tell(), "sha256": self._sha.hexdigest()}
        self._file.close()

    def write(self, data: memoryview) -> None:
        self._sha.update(data)
        self._file.write(data)


def damage(place: Path) -> str | None:
    """What is wrong with a stored plan, if anything."""
    try:
        sums = json.loads((place / SUMS_FILE).read_bytes())
        problems = {name: difference(place / name, sums[name]) for name in (ROWS_FILE, STARTS_FILE)}
    except (OSError, ValueError, TypeError, KeyError):
        return f"{SUMS_FILE} cannot be read"
    return next((f"{name} {problem}" for name, problem in problems.items() if problem), None)


def prune(folder: Path, newest: Path) -> None:
    """Remove the plans used least recently, and what a killed process left."""
    plans = sorted((p for p in folder.iterdir() if p.is_dir() and p != newest), key=lambda p: p.stat().st_mtime)
    abandoned = [p for p in plans if p.name.startswith(".")]
    whole = [p for p in plans if not p.name.startswith(".")]
    for place in [*abandoned, *whole[: max(0, len(whole) - KEPT + 1)]]:
        shutil.rmtree(place, ignore_errors=True)
