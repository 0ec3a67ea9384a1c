"""A single lmms-eval task as a column: its first number is its figure, on its own scale."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

from components.evaluate.suites.figures import NOT_METRICS
from components.evaluate.suites.suite import Column, PerQuestion

UNKNOWN = "first"  # the metric of a task that no suite describes, until it has run


def plain_column(task: str) -> Column:
    """A task of lmms-eval by its name, or of a YAML of the user's own."""
    return Column(title=task, tasks=(task,), split="the task's own", setting="the task's own", metric=UNKNOWN)


def with_its_metric(column: Column, outcome: Mapping[str, Any]) -> Column:
    """The column with the metric that the task turned out to have, and its score of a question where samples hold one."""
    if column.metric != UNKNOWN:
        return column
    (task,) = column.tasks
    results = outcome.get("results", {}).get(task) or {}
    key = next((key for key, value in results.items() if _is_metric(key, value)), None)
    if key is None:
        return column
    metric = key.removesuffix(",none")
    name = key.partition(",")[0]
    samples = outcome.get("samples", {}).get(task) or [{}]
    scored = all(isinstance(sample.get(name), Real) for sample in samples)
    return column.model_copy(update={"metric": metric, "per_question": PerQuestion(key=name) if scored else None})


def _is_metric(key: str, value: Any) -> bool:
    value = value.item() if hasattr(value, "item") and getattr(value, "size", 1) == 1 else value
    return key != "alias" and not key.partition(",")[0].endswith(NOT_METRICS) and isinstance(value, Real)
