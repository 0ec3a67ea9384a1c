"""Benchmarks in the evaluation's process: each column's figure, and a score for each question where there is one."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from components.evaluate.harness.request import Request
from components.evaluate.harness.suite_tasks import manager_of, run_column
from components.evaluate.metrics.known import METRICS
from components.evaluate.metrics.metric import Answered
from components.evaluate.suites.figures import figure
from components.evaluate.suites.plain import with_its_metric
from components.evaluate.suites.questions import cluster_of, score_of
from components.evaluate.suites.suite import Column


def measure_columns(
    model: Any, request: Request, name: str, report: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """The outcome of each column by its name: `column` as it was measured, `figure`, `n`, `reason` and `samples`."""
    if not request.columns:
        return {}
    from components.evaluate.harness.repairs import repair

    columns = {title: Column.model_validate(values) for title, values in request.columns.items()}
    measured = {title: column for title, column in columns.items() if column.not_measured is None}
    repair()
    report("making the benchmarks' tasks")
    manager = manager_of({task for column in measured.values() for task in column.tasks}, name, request.include)
    outcomes: dict[str, dict[str, Any]] = {}
    for title, column in columns.items():
        report(f"benchmark {title}")
        outcomes[title] = measure_column(model, column, manager, request)
    return outcomes


def measure_column(model: Any, column: Column, manager: Any, request: Request) -> dict[str, Any]:
    """One column; whatever goes wrong with it is its reason."""
    outcome: Mapping[str, Any] = {}
    failures: Mapping[str, str] = {}
    if column.not_measured is None:
        try:
            outcome, failures = run_column(model, column, manager, Path(request.scratch), request.limit)
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            failures = dict.fromkeys(column.tasks, f"{type(error).__name__}: {error}")
    column = with_its_metric(column, outcome)
    found = figure(column, outcome, failures)
    return {
        "column": column.model_dump(mode="json"),
        "figure": found.value,
        "n": found.n,
        "reason": found.reason,
        "samples": [row for task in column.tasks for row in rows_of(column, task, outcome)],
    }


def rows_of(column: Column, task: str, outcome: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A task's questions with their answers, in the order of its documents; `score` is None where there is none.

    Questions that count as right together are one row.
    """
    samples: Sequence[Mapping[str, Any]] = outcome.get("samples", {}).get(task, ())
    together = None if column.per_question is None else column.per_question.all_of
    rows: dict[str, dict[str, Any]] = {}
    ordered = sorted(samples, key=lambda sample: int(sample["doc_id"]))
    for sample, score in zip(ordered, scores_of(column, ordered), strict=True):
        key = str(sample["doc_id"] if together is None else sample["doc"][together])
        row = row_of(column, task, key, sample, score)
        rows[key] = joined(rows[key], row) if key in rows else row
    return list(rows.values())


def scores_of(column: Column, samples: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """The score of each question, None where there is none. A caption's CIDEr depends on the references of all."""
    where = column.per_question
    if where is None:
        return [None] * len(samples)
    if where.how != "cider":
        return [score_of(sample, where) for sample in samples]
    captions = [next(found for key in where.keys if (found := sample.get(key)) is not None) for sample in samples]
    answered = [Answered(str(caption["pred"]), tuple(map(str, caption["answer"]))) for caption in captions]
    return [*METRICS["cider"].scores(answered)] if answered else []


def row_of(column: Column, task: str, key: str, sample: Mapping[str, Any], score: float | None) -> dict[str, Any]:
    return {
        "id": f"{task}/{key}",
        "image": None,
        "video": None,
        "cluster": f"{task}/{cluster_of(sample, column) or key}",
        "question": question_of(sample),
        "target": plain_text(sample["target"]),
        "answer": " ".join(map(plain_text, sample["filtered_resps"])),
        "score": score,
    }


def joined(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Two questions that are right only together."""
    scores = (first["score"], second["score"])
    texts = {name: f"{first[name]}\n{second[name]}" for name in ("question", "target", "answer")}
    return {**first, **texts, "score": None if None in scores else min(scores)}


def question_of(sample: Mapping[str, Any]) -> str:
    """What the model was asked: the first text among the request's arguments."""
    return next((value for value in sample["arguments"] if isinstance(value, str)), "")


def plain_text(value: Any) -> str:
    return value if isinstance(value, str) else str(value)
