"""What the gate can find with the held-out rows of a pipeline, said once their number is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.artifacts.artifact import Artifact
from components.artifacts.store import ArtifactStore
from components.errors import UserError
from components.evidence.power import USUAL_CHANGED
from components.pipeline.config import PipelineConfig
from components.pipeline.last_run import last_key
from components.register.foresight import Foreseen, foresee


def foreseen(config: PipelineConfig, store: ArtifactStore, dataset: Artifact) -> list[Foreseen]:
    """Of the held-out task; benchmarks say how many questions they have when they are asked."""
    gate = config.gate
    if gate is None:
        return []
    rows = int(dataset.counts["test"])
    asked = rows if config.evaluate.limit is None else min(rows, config.evaluate.limit)
    return foresee(gate, {config.evaluate.task: asked}, changed_before(config, store))


def last_dataset(config: PipelineConfig, store: ArtifactStore) -> Artifact:
    """What the last run converted. UserError when there is none."""
    key = last_key(config, store, "convert")
    found = store.find(key) if key else None
    if found is None:
        raise UserError(
            f"{store.root}: pipeline {config.name} has no held-out rows yet; run `plm convert` with this config"
        )
    return found


def changed_before(config: PipelineConfig, store: ArtifactStore) -> float:
    """The share of answers whose score differed from the champion's in the last run; the usual one without that."""
    key = last_key(config, store, "compare")
    found = store.find(key) if key else None
    if found is None:
        return USUAL_CHANGED
    comparison: Mapping[str, Any] = found.read_json("comparison.json")
    against = comparison["tasks"][comparison["main"]].get("against", {}).get("champion")
    if not against or not against["clusters"] or not against["squares"]:
        return USUAL_CHANGED
    return float(against["squares"]) / float(against["clusters"])
