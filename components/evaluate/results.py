"""What an evaluation says: of each task its figure, its scores by question, or the reason why there are none."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from components.artifacts.artifact import ArtifactWriter
from components.artifacts.context import StepContext
from components.evaluate.metrics.fitting import Fit, fitting
from components.evaluate.metrics.known import METRICS, without_java
from components.evaluate.metrics.metric import Answered, Metric
from components.evaluate.settings import EvaluateConfig
from components.evaluate.suites.suite import Column
from components.evaluate.tasks.questions import Question, Rejected, named

HELD_OUT = "heldout"  # the task as lmms-eval knows it; people see `evaluate.task`


@dataclass(frozen=True)
class Scored:
    """What a metric says of the answers."""

    metric: Metric
    why: str
    scores: list[float]
    value: float
    also: Mapping[str, float]


def score(name: str | None, also: Sequence[str], questions: Sequence[Question], answers: Sequence[str]) -> Scored:
    """The answers' scores by the metric that is asked for, or by the one that fits the references; values of others."""
    texts, references = [question.text for question in questions], [question.references for question in questions]
    fit = fitting(texts, references) if name is None else Fit(name, "asked for by evaluate.metric")
    metric = METRICS[measurable(fit.metric)]
    why = fit.why if metric.name == fit.metric else f"{fit.why}; no java is installed for {fit.metric}"
    answered = [Answered(answer, right) for answer, right in zip(answers, references, strict=True)]
    scores = metric.scores(answered)
    value = metric.corpus(answered) if metric.corpus else math.fsum(scores) / len(scores)
    others = {other: METRICS[other].value(answered) for other in map(measurable, also) if other != metric.name}
    return Scored(metric, why, scores, value, others)


def measurable(metric: str) -> str:
    """The metric, or what is measured in its place on a machine without Java. UserError where nothing is."""
    return without_java(metric) if METRICS[metric].java and shutil.which("java") is None else metric


def samples_file(task: str) -> str:
    return f"samples/{task}.jsonl"


def write_lines(out: ArtifactWriter, rel: str, rows: Sequence[Mapping[str, Any]]) -> None:
    with out.open(rel, "w") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def sample(question: Question, answer: str, score: float) -> dict[str, Any]:
    """A held-out question with its answer; questions of one `cluster` show the same."""
    return {
        "id": question.id,
        "image": question.image,
        "video": None if question.video is None else asdict(question.video),
        "cluster": " ".join(question.media) or question.id,
        "question": question.text,
        "target": question.target,
        "answer": answer,
        "score": score,
    }


def held_out_result(scored: Scored) -> dict[str, Any]:
    """The held-out rows, as results.json holds a task."""
    return {
        "metric": scored.metric.name,
        "why": scored.why,
        "value": scored.value,
        "also": dict(scored.also),
        "best": scored.metric.best,
        "unit": 1.0,
        "n": len(scored.scores),
        "samples": samples_file(HELD_OUT),
        "held_out": True,
        "not_measured": None,
    }


def benchmark_results(outcomes: Mapping[str, Mapping[str, Any]], out: ArtifactWriter) -> dict[str, dict[str, Any]]:
    """The benchmarks, as results.json holds a task; writes the samples of each."""
    results = {}
    for title, outcome in outcomes.items():
        column = Column.model_validate(outcome["column"])
        rows = scaled(outcome["samples"], column)
        if rows:
            write_lines(out, samples_file(title), rows)
        results[title] = benchmark_result(outcome, column, rows)
    return results


def benchmark_result(outcome: Mapping[str, Any], column: Column, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One benchmark; `samples` names its file where every question has a score, so that models can be paired."""
    paired = column.per_question is not None and bool(rows) and all(row["score"] is not None for row in rows)
    return {
        "metric": metric_name(column),
        "value": outcome["figure"],
        "best": column.best,
        "unit": column.question_scale,
        "n": outcome["n"],
        "samples": samples_file(column.title) if paired else None,
        "held_out": False,
        "not_measured": outcome["reason"],
        "split": column.split,
        "setting": column.setting,
        "published": None if column.published is None else column.published.model_dump(mode="json"),
        "comparable": column.comparable,
    }


def metric_name(column: Column) -> str:
    """What a column's metric is called in records: letters, digits, `_`, `-` and `.`, as MLflow takes them in tags."""
    return "_plus_".join(metric.replace(",", ".") for metric in column.metrics)


def scaled(rows: Sequence[Mapping[str, Any]], column: Column) -> list[dict[str, Any]]:
    """Samples with their scores on the published scale."""
    times = column.question_scale
    return [{**row, "score": None if row["score"] is None else row["score"] * times} for row in rows]


def record(
    settings: EvaluateConfig, results: Mapping[str, Any], rejected: Sequence[Rejected], context: StepContext
) -> None:
    """Send the metrics to the tracker as eval/<task>/<metric>; what was not asked is said, and a limited run marked."""
    metrics: dict[str, float] = {}
    for name, task in results["tasks"].items():
        label = settings.task if task["held_out"] else name
        if task["not_measured"] is None:
            metrics[f"eval/{label}/{task['metric']}"] = task["value"]
            metrics |= {f"eval/{label}/{name}": value for name, value in task.get("also", {}).items()}
        else:
            context.tracker.tag(f"eval.not_measured.{label}", task["not_measured"])
            context.progress(f"{label} not measured: {task['not_measured']}")
    context.tracker.log_metrics(metrics)
    note = ""
    if settings.limit is not None:
        context.tracker.tag("eval.limit", str(settings.limit))
        note = f" (limited to the first {settings.limit})"
    if rejected:
        note += f", {len(rejected)} not asked: {named(rejected)}"
    for lost in results["not_asked"][:1]:
        note += (
            f"; {len(results['not_asked'])} questions of {', '.join(sorted({each['task'] for each in results['not_asked']}))} "
            f"counted as wrong because they cannot be asked, such as document {lost['document']}: {lost['reason']}"
        )
    heldout = results["tasks"][HELD_OUT]
    if settings.metric is None:
        context.progress(f"measured by {heldout['metric']}: {heldout['why']}")
    context.progress(f"{heldout['metric']} {heldout['value']:.3f} on {results['n']} held-out rows{note}")
