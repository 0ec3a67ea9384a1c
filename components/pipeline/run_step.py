"""Run one step into an artifact: in this process, with a local Ray where the step needs one."""

from __future__ import annotations

import errno
import importlib
import logging
from collections.abc import Callable, Mapping

from components.artifacts.artifact import Artifact, StepKey
from components.artifacts.context import StepContext
from components.artifacts.files import remove
from components.artifacts.lock import sole
from components.artifacts.store import ArtifactStore
from components.artifacts.sums import cure
from components.errors import UserError
from components.pipeline.config import PipelineConfig
from components.pipeline.last_run import made_elsewhere
from components.pipeline.step import Step
from components.pipeline.steps import STEPS
from components.processes.local_ray import said_by

log = logging.getLogger(__name__)
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def run_step(
    step: Step,
    key: StepKey,
    config: PipelineConfig,
    inputs: Mapping[str, Artifact],
    store: ArtifactStore,
    context: StepContext,
) -> Artifact:
    """Run a step and commit its artifact; what an interrupted attempt left to resume is removed afterwards.

    Where another process makes the same it is waited for, and its artifact taken, unless a fresh one is asked for.
    """
    with sole(shared_uri(store, key), context.progress):
        if context.fresh:
            remove(context.resume_uri)
        elif made := store.find(key):
            context.progress("made by another run meanwhile: reused")
            return made
        return _make(step, key, config, inputs, store, context)


def _make(
    step: Step,
    key: StepKey,
    config: PipelineConfig,
    inputs: Mapping[str, Artifact],
    store: ArtifactStore,
    context: StepContext,
) -> Artifact:
    module = importlib.import_module(step.module)
    try:
        with said_by(step.name), store.create(key, inputs) as out:
            module.run(step.settings(config), inputs, out, context)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise UserError(
                f"{step.name}: no space left writing {error.filename or store.root}; nothing half-written was kept. "
                "Free some space or change storage.root, then run again"
            ) from error
        raise
    artifact = store.find(key)
    if artifact is None:
        raise UserError(f"{step.name}: its artifact vanished from {store.root} while it was committed; run again")
    try:
        remove(context.resume_uri)
    except Exception as error:  # of a store: the step is done, and what is left behind is only unused space
        log.warning("%s stays behind: %s", context.resume_uri, " ".join(str(error).split())[:200])
    return artifact


def resume_uri(store: ArtifactStore, key: StepKey) -> str:
    """Where a step with this key may leave what an interrupted attempt can resume."""
    return store.resume_uri(key.step, STEPS[key.step].resumes(key).digest[:20])


def shared_uri(store: ArtifactStore, key: StepKey) -> str:
    """What names of the attempts at a key begin with that all who make it must see: its lock, and how far a job is."""
    return store.uri("resume", key.step, STEPS[key.step].resumes(key).digest[:20])


def find_inputs(
    step: Step, config: PipelineConfig, store: ArtifactStore, say: Callable[[str], None]
) -> dict[str, Artifact]:
    """The whole artifacts that a step needs, found by their keys. Raises UserError naming the command that makes one."""
    return _inputs(step, config, store, say, {})


def _inputs(
    step: Step, config: PipelineConfig, store: ArtifactStore, say: Callable[[str], None], known: dict[str, Artifact]
) -> dict[str, Artifact]:
    """The same; `known` has the steps that were found already, so that no source is listed twice."""
    for source in step.inputs.values():
        if source not in known:
            inputs = _inputs(STEPS[source], config, store, say, known)
            known[source] = _upstream(STEPS[source], step.name, config, inputs, store, say)
    return {name: known[source] for name, source in step.inputs.items()}


def _upstream(
    step: Step,
    needed_by: str,
    config: PipelineConfig,
    inputs: Mapping[str, Artifact],
    store: ArtifactStore,
    say: Callable[[str], None],
) -> Artifact:
    command = f"run `plm {step.name.replace('_', '-')}` with this config"
    problem = UserError(f"{needed_by}: its input of step {step.name} is not there yet; {command}")
    try:
        key = step.key(config, inputs)
        found = store.look(key.step, key.digest)
        if isinstance(found, Artifact):
            return found
        if found is not None:
            problem = UserError(f"{needed_by}: its input of step {step.name} is damaged: {found}; {cure(step.name)}")
    except UserError as error:  # files that are not on this machine
        problem = error
    if elsewhere := made_elsewhere(step, config, store):
        say(f"{step.name} as made at {elsewhere[1]}; copies of its files are not compared")
        return elsewhere[0]
    raise problem
