"""Why a step is reused or runs: its key now, laid beside the key of the last run of the same pipeline."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from components.artifacts.artifact import Artifact, StepKey
from components.artifacts.store import ArtifactStore
from components.artifacts.sums import DamagedFile
from components.pipeline.config import PipelineConfig
from components.pipeline.config_loading import flatten
from components.pipeline.last_run import last_key
from components.pipeline.run_step import resume_uri
from components.pipeline.step import Step
from components.pipeline.steps import STEPS


@dataclass(frozen=True)
class StepDecision:
    """Whether a step is reused, and why not; `notes` tell of what an interrupted attempt left."""

    step: str
    reused: bool
    reason: str
    notes: tuple[str, ...] = ()


def explain(config: PipelineConfig, store: ArtifactStore, refresh: frozenset[str]) -> list[StepDecision]:
    """What a run with this config would do with each step. Reads manifests; runs nothing."""
    decisions: list[StepDecision] = []
    made: dict[str, Artifact] = {}
    for step in STEPS.values():
        waiting = [source for source in step.inputs.values() if source not in made]
        if waiting:
            reason = f"waits for {' and '.join(waiting)}, made anew"
            decisions.append(StepDecision(step.name, False, reason, interrupted_notes(step, config, store, None)))
            continue
        key = step.key(config, {name: made[source] for name, source in step.inputs.items()})
        decision, found = decide(key, config, store, refresh)
        decisions.append(decision)
        if found:
            made[step.name] = found
    return decisions


def decide(
    key: StepKey, config: PipelineConfig, store: ArtifactStore, refresh: frozenset[str]
) -> tuple[StepDecision, Artifact | None]:
    """The decision on one step, and the verified artifact where it is reused."""
    if key.step in refresh:
        return StepDecision(key.step, False, "refresh was asked for"), None
    found = store.look(key.step, key.digest)
    if isinstance(found, Artifact):
        try:
            lapsed = STEPS[key.step].lapsed
            if lapsed and (reason := lapsed(config, found, store.leads)):
                return StepDecision(key.step, False, reason), None
        except DamagedFile as damaged:
            return StepDecision(key.step, False, f"damaged: {damaged}"), None
        return StepDecision(key.step, True, "nothing that it depends on changed"), found
    if found is not None:
        return StepDecision(key.step, False, f"damaged: {found}"), None
    last = last_key(config, store, key.step)
    reason = "no earlier run of this pipeline made it" if last is None else "; ".join(differences(last, key))
    return StepDecision(key.step, False, reason, interrupted_notes(STEPS[key.step], config, store, key)), None


def interrupted_notes(step: Step, config: PipelineConfig, store: ArtifactStore, key: StepKey | None) -> tuple[str, ...]:
    """Of the attempts of this pipeline's step that were interrupted: the one that is resumed, and how to resume the others.

    `key` is that of the step that is asked for; None while its inputs are still to be made.
    """
    if step.interrupted is None:
        return ()
    here = resume_uri(store, key) if key else None
    return tuple(step.interrupted(config, store.resume_uri(step.name), key, here))


def differences(last: StepKey, now: StepKey) -> list[str]:
    """One line for each part of the key that changed."""
    lines = [f"input {name} changed" for name in _changed(last.inputs, now.inputs)]
    old, new = flatten(last.config), flatten(now.config)
    lines += [f"config {name}: {old.get(name, '-')} -> {new.get(name, '-')}" for name in _changed(old, new)]
    lines += [f"code {name} changed" for name in _changed(last.code, now.code)]
    lines += [
        f"library {name}: {last.libraries.get(name, '-')} -> {now.libraries.get(name, '-')}"
        for name in _changed(last.libraries, now.libraries)
    ]
    return lines or ["its artifact is missing"]


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted({*old, *new}):
        if _plain(old.get(name)) != _plain(new.get(name)):
            yield name


def _plain(value: Any) -> str:
    return json.dumps(value, default=str)
