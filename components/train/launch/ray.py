"""The workers under Ray Train: started again after what the machines do, not after what the data or the settings do.

A worker, a node or a driver that is lost costs the steps since the last checkpoint. Errors that would come again (UserError,
TrainingDiverged) end the training at once. An interrupted driver lets the workers write a checkpoint first.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ray.train import UserCallback

from components.artifacts.artifact import Artifact
from components.artifacts.context import StepContext
from components.artifacts.files import filesystem
from components.errors import UserError
from components.train.folder import TrainingFolder
from components.train.measure.metrics_log import forwarding
from components.train.settings import TrainConfig
from components.train.watch.guards import TrainingDiverged
from components.train.watch.signals import STOP_NOW, ask
from components.train.worker import TrainJob, ray_worker

T = TypeVar("T")
START_TIMEOUT_SECONDS = "600"  # of a group of workers: imports from a cold disk outlast Ray's 60
COLLECTIVE_TIMEOUT_SECONDS = 600
STOP_SECONDS = 14.0  # for a last checkpoint, inside the 20 s that our Ray jobs, and the 30 s that Prefect leaves
FINAL = (UserError, TrainingDiverged)


class NoRetryOfFinalErrors(UserCallback):
    """Ends a training whose workers raised what trying again would raise again: Ray retries no error of its controller."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for error in worker_exceptions.values():
            if isinstance(error, FINAL):
                raise error


def fit(settings: TrainConfig, inputs: Mapping[str, Artifact], folder: TrainingFolder, context: StepContext) -> None:
    """Run the workers to the last step. What machines break is retried up to `max_failures` times.

    Raises UserError for what would come again, and after a stop that somebody asked for.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    set_ray_train_defaults()
    attempt = uuid.uuid4().hex[:8]
    board = f"metrics-{attempt}"
    job = TrainJob(settings, inputs["shards"], inputs["base"], folder, board)
    fewest = settings.min_workers or settings.workers
    workers: Any = settings.workers if fewest == settings.workers else (fewest, settings.workers)
    trainer = TorchTrainer(
        ray_worker,  # type: ignore[arg-type]  # it returns a value, which Ray Train hands on
        train_loop_config={"job": job},
        torch_config=TorchConfig(
            backend="cpu:gloo,cuda:nccl" if settings.use_gpu else "gloo", timeout_s=COLLECTIVE_TIMEOUT_SECONDS
        ),
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=settings.use_gpu,
            resources_per_worker={"CPU": settings.cpus_per_worker, **({"GPU": 1} if settings.use_gpu else {})},
        ),
        # A name of its own each time: which checkpoint is resumed is decided by ours, not by Ray's record of the name.
        run_config=RunConfig(
            name=f"ray-{attempt}",
            failure_config=FailureConfig(max_failures=settings.max_failures),
            callbacks=[NoRetryOfFinalErrors()],  # type: ignore[list-item]  # Ray declares its older version
            **ray_storage(folder.uri),
        ),
    )
    context.progress(f"starting {settings.workers} workers")
    with forwarding(board, settings.planned_steps, context):
        try:
            result: Any = interruptible(trainer.fit, lambda: ask(folder.uri, STOP_NOW))
        except Exception as error:
            if final := cause_that_is_final(error):
                raise UserError(str(final)) from None
            raise
    if result.return_value:
        raise UserError(f"{result.return_value}; run again to resume")


def cause_that_is_final(error: BaseException | None) -> BaseException | None:
    """The error of a worker that ended the training for good, inside of what Ray raises."""
    while error is not None and not isinstance(error, FINAL):
        failures = getattr(error, "worker_failures", {}).values()
        final = [failure for failure in failures if isinstance(failure, FINAL)]
        error = final[0] if final else getattr(error, "controller_failure", None) or error.__cause__
    return error


def set_ray_train_defaults() -> None:
    """Settings that Ray Train takes from the environment only; what a person has set stays."""
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", START_TIMEOUT_SECONDS)
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")


def ray_storage(uri: str) -> dict[str, Any]:
    """Where Ray Train keeps its own notes. Object stores go through fsspec, whose credentials come from the environment."""
    fs, path = filesystem(uri)
    if "://" not in uri:
        return {"storage_path": path}
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    return {"storage_path": path, "storage_filesystem": PyFileSystem(FSSpecHandler(fs))}


def interruptible(call: Callable[[], T], on_interrupt: Callable[[], None] = lambda: None) -> T:
    """Call in a side thread and wait: Ray Train replaces the SIGINT handler of a main thread, and ends it with status 0.

    So Ctrl-C, and signals that raise, come out of here as they are, after `on_interrupt` and some seconds for the call to
    end by itself; a second one comes out at once. Whoever owns the Ray session ends the workers.
    """
    outcome: dict[str, Any] = {}
    ended = threading.Event()  # an interrupted join() of Python 3.11 takes a live thread for a dead one

    def target() -> None:
        try:
            outcome["value"] = call()
        except BaseException as error:
            outcome["error"] = error
        finally:
            ended.set()

    threading.Thread(target=target, name="ray-train", daemon=True).start()
    try:
        wait_for(ended)
    except BaseException:
        on_interrupt()
        wait_for(ended, STOP_SECONDS)
        raise
    if "error" in outcome:
        raise outcome["error"]
    value: T = outcome["value"]
    return value


def wait_for(event: threading.Event, seconds: float = float("inf")) -> None:
    """Wait in short turns, so that signals are heard."""
    deadline = time.monotonic() + seconds
    while not event.is_set() and time.monotonic() < deadline:
        event.wait(0.2)
