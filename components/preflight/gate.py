"""A gate that no model can pass is said before the training, not after it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from components.pipeline.config import PipelineConfig
from components.preflight.finding import Finding
from components.register.gate import CHAMPION, version_by_alias
from components.tracking.runs import store_is_there, tracking_client


def passable(config: PipelineConfig) -> Iterator[Finding]:
    """Whether an accuracy of 1 would be enough over today's champion. Asks the registry, so not one of the quick checks."""
    if config.gate.min_gain <= 0 or not store_is_there(config.tracking):
        return
    name = config.registry.name or config.name
    try:
        champion: Any = version_by_alias(tracking_client(config.tracking), name, CHAMPION)
        known = float(champion.tags[f"metric/{config.gate.metric}"]) if champion else None
    except Exception:  # requests, sqlalchemy and MLflow families, a champion that was not measured: nothing can be said
        return
    if known is not None and known + config.gate.min_gain > 1:
        yield Finding(
            f"gate.min_gain is {config.gate.min_gain:g}, and the champion of {name} (version {champion.version}) has "
            f"{config.gate.metric} {known:.4f}: not even 1 would pass; lower it to {1 - known:.4f} or less",
            refuses=False,
            step="register",
        )
