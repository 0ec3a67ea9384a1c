"""Names of benchmarks, and what the gate asks of them: a wrong one is found before the training, not after it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path

from components.errors import ConfigError
from components.evaluate.suites.chosen import columns_of
from components.evaluate.suites.names import unknown_tasks
from components.pipeline.config import PipelineConfig
from components.preflight.finding import Finding


def names(config: PipelineConfig) -> Iterator[Finding]:
    """Suites and tasks that there are not, with the nearest; tasks of the gate that nothing measures."""
    settings = config.evaluate
    include = [] if settings.include_path is None else [Path(settings.include_path)]
    if missing := [folder for folder in include if not folder.is_dir()]:
        yield Finding(f"evaluate.include_path: {missing[0]}: no such folder", step="evaluate_base")
    for task, near in unknown_tasks(settings.tasks, include):
        hint = f"; did you mean {', '.join(near)}?" if near else "; `lmms-eval tasks list` shows all"
        yield Finding(f"evaluate.tasks: {task}: lmms-eval has no such task{hint}", step="evaluate_base")
    try:
        measured = [settings.task, *columns_of(settings)]
    except ConfigError as error:
        for line in str(error).splitlines():
            yield Finding(line if line.startswith("evaluate") else f"evaluate.suites: {line}", step="evaluate_base")
        return
    yield from asked_by_gate(config, measured)


def asked_by_gate(config: PipelineConfig, measured: list[str]) -> Iterator[Finding]:
    """The gate's tasks that no evaluation asks."""
    gate = config.gate
    if gate is None:
        return
    guarded = () if gate.no_regression == "all" else gate.no_regression
    for key, tasks in (("main", gate.main), ("no_regression", guarded), ("require", gate.require)):
        for task in tasks:
            if task not in measured:
                near = difflib.get_close_matches(task, measured, 1)
                hint = f"did you mean {near[0]}?" if near else f"measured are {', '.join(measured)}"
                yield Finding(f"gate.{key}: {task}: is not measured; {hint}", step="register")
