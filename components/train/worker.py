"""What every rank runs: the model from the base checkpoint, spread over the ranks, resumed if there is something to resume."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from components.artifacts.artifact import Artifact
from components.model_files.settings import collator_of, model_of
from components.shards.cache import ShardFiles
from components.shards.reader import INDEX, ShardReader, read_index
from components.train.checkpoints import checkpoint
from components.train.checkpoints.saver import Saver
from components.train.data.loader import prefetched, step_work, steps_ahead
from components.train.data.plan import whole_cost
from components.train.data.plan_file import stored_plan
from components.train.data.rejected import RejectedLog
from components.train.data.selection import plan_spec
from components.train.folder import TrainingFolder
from components.train.hooks import RankHooks
from components.train.loop import train
from components.train.measure.metrics import Gauge
from components.train.measure.metrics_log import sender
from components.train.measure.profiler import Profiler
from components.train.measure.validation import Validation
from components.train.model.assembly import assemble
from components.train.model.parallel import Group
from components.train.run import Identity, resume
from components.train.settings import TrainConfig
from components.train.update.optimizer import ShardedAdamW
from components.train.watch.guards import Anomaly, Guard, RollBack
from components.train.watch.signals import Agreement, Signals, Stopped, polled, signals_stop, touch_files
from components.train.watch.watchdog import Watchdog
from plm_model.family import part
from plm_model.model_directory.files import load_weights

if TYPE_CHECKING:
    from components.train.model.towers import Trainable

Send = Callable[[dict[str, Any]], None]
COMPILED_STEPS = 4  # blocks are compiled at the first pack, and once more when another length makes it a symbol


@dataclass(frozen=True)
class TrainJob:
    """All that a worker needs, free of secrets: it is stored and shown by the cluster. Its folder is absolute."""

    settings: TrainConfig
    shards: Artifact
    base: Artifact
    folder: TrainingFolder
    board: str | None = None


def ray_worker(job: Mapping[str, TrainJob]) -> str | None:
    """Entry point under Ray Train, which has made the process group. Returns why it stopped early, if it did."""
    from ray.train import get_preemption_info
    from ray.train.torch import get_device

    settings = job["job"].settings
    device = get_device() if settings.use_gpu else torch.device("cpu")
    if device.type == "cpu":
        torch.set_num_threads(max(1, int(settings.cpus_per_worker)))
    send = sender(job["job"].board) if job["job"].board else None
    try:
        run_rank(job["job"], device, send, leaving=lambda: get_preemption_info() is not None)
    except Stopped as stopped:
        return str(stopped)
    return None


def run_rank(
    job: TrainJob, device: torch.device, send: Send | None = None, leaving: Callable[[], bool] | None = None
) -> None:
    """Train to the last step; every rank calls it. Starts from the newest whole checkpoint, if there is one.

    `leaving` tells that this machine is about to be taken away: a checkpoint is made while there is time. Raises Stopped
    after SIGTERM, Ctrl-C or a touch file, TrainingDiverged, and UserError for what trying again would not mend.
    """
    group, signals = Group.current(device), Signals()
    guards = job.settings.guards
    watchdog = Watchdog(
        group,
        guards.hang_seconds,
        job.folder.hangs,
        signals.stop,
        first_steps=COMPILED_STEPS if job.settings.compile else 1,
    )
    agreement = Agreement(group, signals)
    rolled_back: list[Anomaly] = []
    with (
        watchdog.watching(),
        touch_files(job.folder.uri, signals, group),
        signals_stop(signals),
        polled(leaving, signals),
    ):
        while True:
            try:
                return attempt(job, group, send, watchdog, agreement, rolled_back)
            except RollBack as back:
                rolled_back += back.anomalies
            watchdog.begin_again()
            release_memory(device)


def release_memory(device: torch.device) -> None:
    """Free what the attempt before held: shards and their hooks refer to each other, so that counting does not."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def attempt(
    job: TrainJob,
    group: Group,
    send: Send | None,
    watchdog: Watchdog,
    agreement: Agreement,
    rolled_back: Sequence[Anomaly],
) -> None:
    """Train from the newest checkpoint to the last step, leaving out the steps that were rolled back."""
    settings = job.settings
    index = read_index(job.shards.local(INDEX))
    model, optimizer = prepare(job, group)
    cost = part(model_of(job.base).family, "model").cost(model)
    gauge = Gauge.of(model, cost, index.source_names, group.device)
    steps = settings.planned_steps
    plan = stored_plan(plan_spec(index, settings, whole_cost(cost))[0], steps, job.shards.cache_dir / "plans")
    identity = Identity.of(settings, plan.digest, job.shards.digest, job.base.digest)
    run = resume(job.folder, identity, model, optimizer, group, send, rolled_back)
    files = ShardFiles(job.shards, job.shards.cache_dir / "shards", int(settings.shard_cache_gb * 1e9))
    reader = ShardReader(files, collator_of(job.base))
    works = step_work(
        plan,
        index,
        reader,
        rank=group.rank,
        world=group.world,
        first=run.state["step"] + 1,
        last=steps,
        processes=settings.loader_workers,
        pin=group.device if group.device.type == "cuda" else None,
    )
    rejected = RejectedLog(job.folder.rejected)
    saver = saver_of(job, model, optimizer, group)
    guard = Guard(settings.guards, group)
    guard.resume(run.state["recent_losses"])
    profiler = Profiler(job.folder.uri, settings.profile, group, next_step=run.state["step"] + 1)
    held_out = Validation.of(job.shards, reader, settings) if settings.validate_every else None
    beside = RankHooks(
        settings,
        run,
        optimizer,
        saver,
        guard,
        watchdog,
        agreement,
        profiler,
        group,
        job.folder.uri,
        validate=partial(held_out.loss, model, group) if held_out else None,
        saved=run.state["step"],
    )
    agreement.before_first_step(run.state["step"], steps)
    try:
        with prefetched(rejected.noted(works), steps_ahead(settings.packs_per_step, group.world)) as ready:
            train(model, optimizer, beside.arriving(run.counted(ready)), settings, group, beside.hooks(), gauge)
        beside.finish()
    except RollBack:
        saver.wait()
        raise


def saver_of(job: TrainJob, model: nn.Module, optimizer: ShardedAdamW, group: Group) -> Saver:
    """What writes the checkpoints of this training, and keeps as many as its settings say."""
    return Saver(
        job.folder.checkpoints,
        partial(checkpoint.tensors, model, optimizer),
        group,
        job.settings.keep_checkpoints,
        keep_best=job.settings.publish == "best",
    )


def prepare(job: TrainJob, group: Group) -> tuple[Trainable, ShardedAdamW]:
    """The base model, frozen and sharded as the settings say, with its optimizer. Never whole on one rank."""
    described = model_of(job.base)
    model = cast("Trainable", part(described.family, "model").build(described.architecture, "meta"))
    return model, assemble(model, partial(load_weights, directory=job.base.local()), job.settings, group)
