"""One score for each question, out of lmms-eval's samples: what paired comparisons of two models are computed from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

from components.evaluate.suites.suite import Column, PerQuestion

MISSING = object()


def score_of(sample: Mapping[str, Any], where: PerQuestion) -> float | None:
    """A question's score, between 0 and 1 for most benchmarks; None where it was not measured."""
    value = next((found for key in where.keys if (found := at(sample, key)) is not MISSING), None)
    if value is None:
        return None
    if where.how == "yes_no":
        return {"yes": 1.0, "no": 0.0}.get(str(value).strip().lower())
    if where.truth is not None:
        said, right = str(value).strip().lower(), str(at(sample, where.truth)).strip().lower()
        return float(said[:1] == right[:1] if where.how == "first_letter" else said == right)
    value = value.item() if hasattr(value, "item") else value
    return float(value) if isinstance(value, Real) and math.isfinite(value) else None


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
