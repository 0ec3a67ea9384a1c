"""What the last run of a pipeline made: the key of each step, kept beside the artifacts for whoever comes next."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from components.artifacts.artifact import Artifact, StepKey
from components.artifacts.files import read_json, write_json
from components.artifacts.store import ArtifactStore
from components.pipeline.config import PipelineConfig
from components.pipeline.step import OUTSIDE, Step


def remember_key(config: PipelineConfig, store: ArtifactStore, key: StepKey) -> None:
    """Keep the parts of a step's key and where it was worked out, so that the next run can say what changed."""
    write_json(_uri(config, store, key.step), {**asdict(key), "place": _place()})


def last_key(config: PipelineConfig, store: ArtifactStore, step: str) -> StepKey | None:
    """The key that the step had in the last run of this pipeline."""
    parts = _parts(config, store, step)
    return _key(step, parts) if parts else None


def made_elsewhere(step: Step, config: PipelineConfig, store: ArtifactStore) -> tuple[Artifact, str] | None:
    """What a step over local files made in the last run, and where, if that was not here and settings and code are the same.

    Such a step is keyed by modification times, and a copy of the files, as `ray job submit --working-dir` makes one, has
    others. Where the last run was here, other times are a change.
    """
    parts = _parts(config, store, step.name) if step.outside else None
    if parts is None or parts.get("place", _place()) == _place():
        return None
    key = _key(step.name, parts)
    settings = {name: value for name, value in key.config.items() if name != OUTSIDE}
    here = json.loads(json.dumps(step.counted(config))), step.code(config.model.family), step.versions()
    if (settings, key.code, key.libraries) != here:
        return None
    found = store.find(key)
    return (found, parts["place"]) if found else None


def _parts(config: PipelineConfig, store: ArtifactStore, step: str) -> Mapping[str, Any] | None:
    found = read_json(_uri(config, store, step))
    whole = found and all(isinstance(found.get(part), dict) for part in ("inputs", "config", "code"))
    return found if whole else None


def _key(step: str, parts: Mapping[str, Any]) -> StepKey:
    return StepKey(step, parts["inputs"], parts["config"], parts["code"], parts.get("libraries", {}))


def _uri(config: PipelineConfig, store: ArtifactStore, step: str) -> str:
    return store.uri(config.name, "last", f"{step}.json")


def _place() -> str:
    """Where relative paths lead to from here."""
    return f"{socket.gethostname()}:{Path.cwd()}"
