"""The numbers of lmms-eval, which come as floats, NumPy scalars, dicts, tuples, None or "N/A", as one flat mapping."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from numbers import Real
from typing import Any

NOT_METRICS = ("_stderr", "_stderr_clt", "_stderr_clustered")


def flat_metrics(values: Mapping[str, Any]) -> dict[str, float]:
    """{metric name: number} of one task.

    `"acc,none": 0.5` -> `acc`; `"acc,strict": 0.5` -> `acc.strict`; a dict or tuple under `score` -> `score/<key or position>`.
    What is no finite number (None, "N/A", texts) and the standard errors are left out.
    """
    flat: dict[str, float] = {}
    for name, value in values.items():
        metric, _, kind = name.partition(",")
        if metric == "alias" or metric.endswith(NOT_METRICS):
            continue
        flat.update(numbers(metric if kind in ("", "none") else f"{metric}.{kind}", value))
    return flat


def numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from numbers(f"{name}/{key}", inner)
    elif isinstance(value, (list, tuple)):
        for position, inner in enumerate(value):
            yield from numbers(f"{name}/{position}", inner)
    elif hasattr(value, "item") and getattr(value, "size", 1) == 1:
        yield from numbers(name, value.item())
    elif isinstance(value, Real) and math.isfinite(value):
        yield name, float(value)
