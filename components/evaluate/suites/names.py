"""The names of all tasks that may be asked for, without importing lmms-eval: what its YAML files call themselves."""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

OURS = Path(__file__).resolve().parents[1] / "benchmarks"  # tasks that lmms-eval lacks
NAMED = re.compile(r"^[\"']?(?:task|group|tag)[\"']?\s*:\s*[\"']?([^\s\"'#\[]+)", re.MULTILINE)
LISTED = re.compile(r"^\s*-\s*[\"']?([A-Za-z0-9][\w.-]*)[\"']?\s*$", re.MULTILINE)  # below `tag:`, among others


def task_names(include: Sequence[Path] = ()) -> frozenset[str]:
    """Tasks, groups and tags of lmms-eval, of ours, and of the folders `include`."""
    return frozenset(name for folder in (*include, OURS, *_harness()) for name in _names(folder))


def unknown_tasks(tasks: Iterable[str], include: Sequence[Path] = ()) -> Iterator[tuple[str, list[str]]]:
    """Each name that no file has, with the nearest ones."""
    asked = list(tasks)
    known = task_names(include) if asked else frozenset()
    for task in asked:
        if task not in known:
            yield task, difflib.get_close_matches(task, sorted(known), 3, 0.6)


def _harness() -> list[Path]:
    found = importlib.util.find_spec("lmms_eval")
    return [] if found is None else [Path(place) / "tasks" for place in found.submodule_search_locations or ()]


@cache
def _names(folder: Path) -> frozenset[str]:
    names: set[str] = set()
    for path in folder.rglob("*.y*ml"):
        text = path.read_text(encoding="utf-8", errors="replace")
        names.update(NAMED.findall(text))
        if re.search(r"^tag\s*:\s*$", text, re.MULTILINE):
            names.update(LISTED.findall(text))
    for path in folder.rglob("_*"):
        if path.is_file() and path.suffix == "" and path.stat().st_size < 100_000:  # templates that tasks include
            names.update(NAMED.findall(path.read_text(encoding="utf-8", errors="replace")))
    return frozenset(names)
