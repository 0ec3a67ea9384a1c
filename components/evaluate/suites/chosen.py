"""Which benchmarks a config asks for, and what of their files counts for the result."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.errors import ConfigError
from components.evaluate.settings import EvaluateConfig
from components.evaluate.suites.names import OURS
from components.evaluate.suites.plain import plain_column
from components.evaluate.suites.suite import Column, read_suite, suite_path


def columns_of(settings: EvaluateConfig) -> dict[str, Column]:
    """The columns of all suites and the single tasks, by title. ConfigError when two of them are called alike."""
    found: dict[str, Column] = {}
    for column in _all(settings):
        if found.get(column.title, column) != column:
            raise ConfigError(f"evaluate: two suites have a column {column.title}, and they differ; choose one of them")
        found[column.title] = column
    if settings.task in found:
        raise ConfigError(
            f"evaluate.task: {settings.task} is the name of a benchmark, too; call the held-out rows otherwise"
        )
    return found


def _all(settings: EvaluateConfig) -> Iterator[Column]:
    for name in settings.suites:
        yield from read_suite(name).columns
    yield from map(plain_column, settings.tasks)


def state_of(settings: EvaluateConfig) -> dict[str, Any]:
    """Digests of the files that say what is asked: suites, tasks of the user's own and of ours."""
    suites = {name: hashlib.sha256(suite_path(name).read_bytes()).hexdigest() for name in settings.suites}
    included = {"include_path": _digest(Path(settings.include_path))} if settings.include_path else {}
    return {"suites": suites, "benchmarks": _digest(OURS), **included}


def _digest(folder: Path) -> str:
    """Of the code and the YAML of a folder."""
    sha = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in (".yaml", ".yml", ".py")):
        sha.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return sha.hexdigest()
