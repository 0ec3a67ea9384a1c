"""`plm STEP CONFIG`: one step, by hand or as a Ray job's entry point, from and to the whole chain's artifacts."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any

from components.artifacts.artifact import digest_of
from components.artifacts.context import StepContext
from components.errors import UserError
from components.pipeline.config import PipelineConfig
from components.pipeline.config_loading import dump_config, flatten
from components.pipeline.last_run import last_key, remember_key
from components.pipeline.ray_jobs import not_on_cluster, read_order
from components.pipeline.ray_session import ray_session
from components.pipeline.run_step import find_inputs, resume_uri, run_step
from components.pipeline.steps import STEPS
from components.pipeline.storage import store_of
from components.tracking.runs import (
    RunTracker,
    SilentTracker,
    open_tracking,
    spool_dir,
    start_run,
    store_is_there,
    tracking_client,
)
from flows.run.explain import decide
from flows.run.parent_run import ended, git_commit
from flows.run.progress import Progress, publish_progress
from flows.run.recovery import close_dead_runs, lease
from flows.run.starting import check_start
from flows.servers.environment import prepare_environment

PROGRESS_SECONDS = 2.0


def run_single_step(
    name: str,
    config: PipelineConfig,
    refresh: bool,
    mlflow_run: str | None,
    order_uri: str | None,
    progress_uri: str | None,
) -> dict[str, Any]:
    """Run one step whose inputs are there; returns its artifact's URI and digests."""
    if not order_uri:  # else the flow did, where it started
        again = frozenset({name} if refresh else ())
        check_start(config, {name}, again, lambda text: Progress().say("note", text))
    prepare_environment(config)
    step = STEPS[name]
    store = store_of(config)
    store.check()
    progress = _Reporter(name, progress_uri)
    if order_uri:
        key, inputs = read_order(order_uri, store, config.model.family)
    else:
        inputs = find_inputs(step, config, store, progress)
        key = step.key(config, inputs)
    decision, found = decide(key, config, store, frozenset({name} if refresh else ()))
    for note in decision.notes:
        progress.say(note)
    if found is None:
        if not order_uri:
            close_dead_runs(config, in_prefect=False)
        tracker = _tracker(config, name, mlflow_run, ordered=order_uri is not None)
        previous = None if order_uri else last_key(config, store, name)
        context = StepContext(
            tracker,
            progress,
            store.cache_dir,
            resume_uri(store, key),
            fresh=refresh or step.always_fresh,
            previous=store.find(previous) if previous else None,
            pipeline=config.name,
            kept_uri=store.resume_uri("kept"),
            tags={
                "mlflow.source.git.commit": git_commit(),
                "plm.config_sha": digest_of(config.model_dump(mode="json")),
            },
        )
        ray = ray_session(config) if step.uses_ray else contextlib.nullcontext()
        with lease(config) as held, ended(tracker), ray:
            if not mlflow_run:
                held.update(mlflow_run_id=tracker.run_id)
            found = run_step(step, key, config, inputs, store, context)
    if not order_uri:  # else the flow does it
        remember_key(config, store, key)
    print(f"{name}: {found.uri}")
    return {"step": name, "uri": found.uri, "digest": found.digest, "key": key.digest}


class _Reporter:
    def __init__(self, step: str, uri: str | None) -> None:
        self._step, self._uri, self._shown, self._sent = step, uri, Progress(), 0.0

    def say(self, text: str) -> None:
        """A line that stays."""
        self._shown.say(self._step, text)

    def __call__(self, text: str) -> None:
        self._shown.update(self._step, text)
        if self._uri and time.monotonic() - self._sent >= PROGRESS_SECONDS:
            publish_progress(self._uri, text)
            self._sent = time.monotonic()


class _JoinedRun(RunTracker):
    """A run that somebody else opened and will close."""

    def end(self, status: str) -> None:
        self._spool.close()


def _tracker(config: PipelineConfig, name: str, mlflow_run: str | None, ordered: bool) -> Any:
    if mlflow_run and not store_is_there(config.tracking):
        raise not_on_cluster(config, f"{name} on {socket.gethostname()}")
    if mlflow_run:  # the pipeline has spoken to the store: from here on an outage stops nothing
        return _JoinedRun(tracking_client(config.tracking), mlflow_run, spool_dir(config.tracking))
    try:
        client, experiment = open_tracking(config.tracking)
    except UserError:
        if config.tracking.required and not ordered:
            raise
        return SilentTracker()
    tracker = start_run(config.tracking, client, experiment, f"{config.name}-{name}", {"plm.step": name})
    tracker.log_params(flatten(config.model_dump(mode="json")))
    tracker.tag("plm.config", dump_config(config)[:4000])
    return tracker
