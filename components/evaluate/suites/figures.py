"""A column's figure, on the published scale, out of what lmms-eval gives; where there is none, the true reason instead.

MME is a sum of two metrics, BLINK a mean over tasks, OCRBench a sum that lmms-eval divides by 1000 however many questions
were asked. Worked example: 3 right answers of 4 give `ocrbench_accuracy` 0.003; times 1000, divided by 4 and times the
published scale of 1000, the figure is 750.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from components.evaluate.suites.questions import score_of
from components.evaluate.suites.suite import Column

COUNT = "num_instances"  # lmms-eval's key for how many questions a mapping of scores is about
NOT_METRICS = ("_stderr", "_stderr_clt", "_stderr_clustered")


@dataclass(frozen=True)
class Figure:
    """A column's figure, or None and why; `n` questions were scored."""

    value: float | None
    reason: str | None
    n: int


class NoFigure(Exception):
    """Why a column has no figure."""


def figure(column: Column, outcome: Mapping[str, Any], failures: Mapping[str, str] | None = None) -> Figure:
    """The figure of a column.

    `outcome` is lmms-eval's: `results` per task, with `samples` or `n-samples` beside it; `failures` says of each task that
    did not run why. Of several tasks every one counts alike, however many questions it has, as in the published tables.
    """
    n = sum(questions(column, task, outcome) for task in column.tasks)
    if column.not_measured is not None:
        return Figure(None, column.not_measured, n)
    try:
        values = [task_value(column, task, outcome, failures or {}) for task in column.tasks]
    except NoFigure as reason:
        return Figure(None, str(reason), n)
    return Figure(column.scale * sum(values) / len(values), None, n)


def task_value(column: Column, task: str, outcome: Mapping[str, Any], failures: Mapping[str, str]) -> float:
    """A task's value on lmms-eval's scale: its metric, or the sum of its metrics. NoFigure where one is missing."""
    if task in failures:
        raise NoFigure(f"{task} did not run: {failures[task]}")
    results = outcome.get("results", {}).get(task)
    if results is None:
        raise NoFigure(f"lmms-eval gave no results for {task}")
    value = sum(number(task, results, metric, column.part) for metric in column.metrics)
    if column.divided_by is None:
        return value
    n = questions(column, task, outcome)
    if not n:
        raise NoFigure(f"how many questions of {task} were asked is not known, and its metric is a sum")
    return value * column.divided_by / n


def number(task: str, results: Mapping[str, Any], metric: str, part: str | int | None) -> float:
    """One finite number of a task's results. `anls` is the key `anls,none`; a filter is named: `exact_match,strict`."""
    key = metric if "," in metric else f"{metric},none"
    if key not in results:
        names = [name for name in results if name != "alias" and not name.split(",")[0].endswith(NOT_METRICS)]
        raise NoFigure(f"lmms-eval's results for {task} hold no {metric}, but {', '.join(names) or 'nothing'}")
    value = results[key]
    where = f"{metric} of {task}"
    if part is not None:
        value, where = part_of(value, part, where), f"{part} in {where}"
    value = value.item() if hasattr(value, "item") and getattr(value, "size", 1) == 1 else value
    if not isinstance(value, Real) or not math.isfinite(value):
        raise NoFigure(f"{where} is {value!r}, which is no figure")
    return float(value)


def part_of(value: Any, part: str | int, where: str) -> Any:
    """An entry of a mapping, or a position of a list or tuple."""
    if isinstance(part, str) and isinstance(value, Mapping) and part in value:
        return value[part]
    if isinstance(part, int) and isinstance(value, Sequence) and not isinstance(value, str) and part < len(value):
        return value[part]
    raise NoFigure(f"{where} is {value!r}, which holds no {part}")


def questions(column: Column, task: str, outcome: Mapping[str, Any]) -> int:
    """How many questions of a task were scored: those whose score is known, where lmms-eval keeps one of each."""
    samples = outcome.get("samples", {}).get(task)
    if samples is not None:
        scored = column.per_question
        if scored is None or scored.how == "cider":
            return len(samples)
        return sum(score_of(sample, scored) is not None for sample in samples)
    results = outcome.get("results", {}).get(task) or {}
    for metric in column.metrics:
        value = results.get(metric if "," in metric else f"{metric},none")
        if isinstance(value, Mapping) and COUNT in value:
            return int(value[COUNT])
    return int(outcome.get("n-samples", {}).get(task, {}).get("effective", 0))
