"""One score for each question, out of lmms-eval's samples: what paired comparisons of two models are computed from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from components.evaluate.suites.suite import Column, PerQuestion

MISSING = object()


@dataclass(frozen=True)
class Score:
    """A question of a task and its score, None where it was not measured; `cluster` is what it shares media with."""

    task: str
    document: int
    score: float | None
    cluster: str | None


def scores(column: Column, outcome: Mapping[str, Any]) -> list[Score]:
    """The questions of a column in the order of its tasks and documents; none where lmms-eval keeps no score of them."""
    if column.per_question is None:
        return []
    return [
        Score(task, sample["doc_id"], score_of(sample, column.per_question), cluster_of(sample, column))
        for task in column.tasks
        for sample in sorted(outcome.get("samples", {}).get(task, ()), key=lambda sample: int(sample["doc_id"]))
    ]


def score_of(sample: Mapping[str, Any], where: PerQuestion) -> float | None:
    """A question's score, between 0 and 1 for most benchmarks; None where it was not measured."""
    keys = (where.key,) if isinstance(where.key, str) else where.key
    value = next((found for key in keys if (found := at(sample, key)) is not MISSING), None)
    if value is None:
        return None
    if where.how == "yes_no":
        return {"yes": 1.0, "no": 0.0}.get(str(value).strip().lower())
    if where.truth is not None:
        said, right = str(value).strip().lower(), str(at(sample, where.truth)).strip().lower()
        return float(said[:1] == right[:1] if where.how == "first_letter" else said == right)
    value = value.item() if hasattr(value, "item") else value
    return float(value) if isinstance(value, Real) and math.isfinite(value) else None


def group_scores(sample_scores: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Group -> 1.0 when every question of it is right, as multi-binary accuracy counts: `a: 1, a: 0, b: 1` -> a 0, b 1."""
    groups: dict[str, float] = {}
    for group, score in sample_scores:
        groups[group] = min(groups.get(group, 1.0), score)
    return groups


def mean_of(column: Column, samples: Iterable[Mapping[str, Any]]) -> float | None:
    """The mean of a column's scores over its questions, or over its groups, of what was measured; None without any."""
    if (where := column.per_question) is None:
        return None
    known = [(sample, score) for sample in samples if (score := score_of(sample, where)) is not None]
    found = [score for _, score in known]
    if where.all_of is not None:
        group = where.all_of
        found = list(group_scores((str(sample["doc"][group]), score) for sample, score in known).values())
    return sum(found) / len(found) if found else None


def cluster_of(sample: Mapping[str, Any], column: Column) -> str | None:
    """What a question shares media with; None where that is not known."""
    if column.cluster is None:
        return None
    value = at(sample.get("doc", {}), column.cluster)
    return None if value is MISSING or value is None else str(value)


def at(values: Any, dotted: str) -> Any:
    """The value at a dotted path, or MISSING."""
    for part in dotted.split("."):
        if not isinstance(values, Mapping) or part not in values:
            return MISSING
        values = values[part]
    return values
