"""A gate that no model can pass is said before the training, not after it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from components.evaluate.metrics.known import METRICS
from components.pipeline.config import PipelineConfig
from components.preflight.finding import Finding
from components.register.aliases import CHAMPION, version_by_alias
from components.tracking.runs import store_is_there, tracking_client


def passable(config: PipelineConfig) -> Iterator[Finding]:
    """Whether the best score would be enough over today's champion. Asks the registry, so not one of the quick checks."""
    gate = config.gate
    if gate is None or gate.min_gain <= 0 or not store_is_there(config.tracking):
        return
    name = config.registry.name or config.name
    try:
        champion: Any = version_by_alias(tracking_client(config.tracking), name, CHAMPION)
    except Exception:  # requests, sqlalchemy and MLflow families: nothing can be said
        return
    known = None if champion is None else known_score(champion.tags, (gate.main or (config.evaluate.task,))[0])
    if known is None:
        return
    metric, score = known
    best = METRICS[metric].best
    if score + gate.min_gain > best:
        yield Finding(
            f"gate.min_gain is {gate.min_gain:g}, and the champion of {name} (version {champion.version}) has "
            f"{metric} {score:.4f}: not even {best:g} would pass; lower it to {best - score:.4f} or less",
            refuses=False,
            step="register",
        )


def known_score(tags: Mapping[str, str], task: str) -> tuple[str, float] | None:
    """The metric of ours that a version was measured by on a task, and its value."""
    for metric in METRICS:
        if (value := tags.get(f"metric/{task}/{metric}")) is not None:
            return metric, float(value)
    return None
