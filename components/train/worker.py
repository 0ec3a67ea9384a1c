"""What every rank runs: the model from the base checkpoint, spread over the ranks, resumed if there is something to resume."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

from components.artifacts import Artifact
from components.errors import UserError
from components.train import checkpoint
from components.train.assembly import assemble
from components.train.async_save import Saver
from components.train.loader import StepWork, prefetched, step_work, steps_ahead
from components.train.loop import Hooks, train
from components.train.metrics import Gauge
from components.train.optimizer import ShardedAdamW
from components.train.parallel import Group
from components.train.plan import PackPlan, whole_cost
from components.train.plan_file import stored_plan
from components.train.profiler import Profiler
from components.train.progress import MetricsLog, live_file, sender
from components.train.settings import TrainConfig
from components.train.shard_cache import ShardFiles
from components.train.shards import INDEX, ShardReader, plan_spec, read_index
from components.train.skipped import SkippedLog, skipped_uri
from components.train.validation import Validation
from plm_model.plm import PLM
from plm_model.weights import build, load_config, load_weights

RETRY_SECONDS = 5.0


@dataclass(frozen=True)
class TrainJob:
    """All that a worker needs, free of secrets: it is stored and shown by the cluster. URIs are absolute."""

    settings: TrainConfig
    shards: Artifact
    base: Artifact
    checkpoints: str
    board: str | None = None


def ray_worker(job: Mapping[str, TrainJob]) -> None:
    """Entry point under Ray Train, which has made the process group."""
    from ray.train.torch import get_device

    settings = job["job"].settings
    device = get_device() if settings.use_gpu else torch.device("cpu")
    if device.type == "cpu":
        torch.set_num_threads(max(1, int(settings.cpus_per_worker)))
    run_rank(job["job"], device, job["job"].board and sender(job["job"].board))


def run_rank(job: TrainJob, device: torch.device, send: Callable[[dict[str, Any]], None] | None = None) -> None:
    """Train to the last step; every rank calls it. Starts from the newest whole checkpoint, if there is one."""
    settings = job.settings
    group = Group.current(device)
    index = read_index(job.shards.local(INDEX))
    model, optimizer = prepare(job, group)
    gauge = Gauge.of(model, index.source_names, device)
    plan = stored_plan(
        plan_spec(index, settings, whole_cost(gauge.cost))[0], settings.steps, job.shards.cache_dir / "plans"
    )
    run = resume(job, plan, model, optimizer, group, send)
    files = ShardFiles(job.shards, job.shards.cache_dir / "shards", int(settings.shard_cache_gb * 1e9))
    works = step_work(
        plan,
        index,
        ShardReader(files, model.config),
        rank=group.rank,
        world=group.world,
        first=run.state["step"] + 1,
        last=settings.steps,
        processes=settings.loader_workers,
        pin=device.type == "cuda",
    )
    skipped = SkippedLog(skipped_uri(job.checkpoints))

    saver = Saver(
        job.checkpoints,
        partial(checkpoint.tensors, model, optimizer),
        group,
        settings.keep_checkpoints,
        keep_best=settings.result == "best",
    )

    folder = job.checkpoints.rpartition("/")[0]
    profiler = Profiler(folder, settings.profile, group, next_step=run.state["step"] + 1)

    held_out = (
        Validation.of(job.shards, ShardReader(files, model.config), settings) if settings.validate_every else None
    )

    def validate(step: int) -> None:
        if held_out is not None:
            run.log.append(step, {"val/loss": held_out.loss(model, group)})

    def save(step: int) -> None:
        saver.start(run.at(step, optimizer, group), run.log.text)

    with prefetched(skipped.noted(works), steps_ahead(settings.packs_per_step, group.world)) as ready:
        train(
            model,
            optimizer,
            run.counted(ready),
            settings,
            group,
            Hooks(
                run.log.append,
                save,
                before_update=saver.wait_copied,
                after_step=lambda work: profiler.after_step(work.step),
                on_validation=validate,
            ),
            gauge,
        )
    profiler.close()
    insist(saver, lambda: save(settings.steps), settings.checkpoint_patience_s)


def insist(saver: Saver, save: Callable[[], None], patience_s: float) -> None:
    """Wait for the last checkpoint; a failed one is tried again for so long, then it is a UserError."""
    for _ in range(int(patience_s / RETRY_SECONDS)):
        if saver.wait() is None:
            return
        time.sleep(RETRY_SECONDS)
        save()
    if failure := saver.wait():
        raise UserError(f"the last checkpoint could not be written: {failure}")


def prepare(job: TrainJob, group: Group) -> tuple[PLM, ShardedAdamW]:
    """The base model, frozen and sharded as the settings say, with its optimizer. Never whole on one rank."""
    folder = job.base.local()
    model = build(load_config(folder), device="meta")
    return model, assemble(model, partial(load_weights, directory=folder), job.settings, group)


@dataclass
class Run:
    """The numbers of a run over all its attempts: `state` as of this attempt's first step, and what came since."""

    state: dict[str, Any]
    log: MetricsLog
    tokens: int = 0
    tiles: int = 0
    started: float = field(default_factory=time.time)

    def counted(self, works: Iterable[StepWork]) -> Iterator[StepWork]:
        """The same work, added up on the way."""
        self.started = time.time()
        for work in works:
            self.tokens += work.tokens
            self.tiles += work.tiles
            yield work

    def at(self, step: int, optimizer: ShardedAdamW, group: Group) -> dict[str, Any]:
        """The state after a step: what a checkpoint keeps and the next attempt goes on from."""
        seconds = time.time() - self.started
        return {
            **self.state,
            "step": step,
            "updates": optimizer.updates_made(),
            "loss": self.log.last.get("train/loss"),
            "score": self.log.last.get("val/loss", self.log.last.get("train/loss")),
            "tokens": self.state["tokens"] + self.tokens,
            "tiles": self.state["tiles"] + self.tiles,
            "world_size": group.world,
            "seconds": self.state["seconds"] + seconds,
            "attempt_seconds": seconds,
        }


def resume(
    job: TrainJob,
    plan: PackPlan,
    model: PLM,
    optimizer: ShardedAdamW,
    group: Group,
    send: Callable[[dict[str, Any]], None] | None,
) -> Run:
    """The run as the newest whole checkpoint left it, loaded into model and optimizer; a fresh one where there is none."""
    folder = newest_for_all(job.checkpoints, group)
    sink, live = (send, live_file(job.checkpoints)) if group.rank == 0 else (None, None)
    if folder is None:
        state = {"step": 0, "plan": plan.digest, "tokens": 0, "tiles": 0, "seconds": 0.0, "restarts": 0}
        return Run(state, MetricsLog("", sink, live))
    state = checkpoint.restore(folder, model, optimizer)
    if state["plan"] != plan.digest:
        raise ValueError(f"{folder}: made with other data or pack settings; run again with --refresh train")
    state["restarts"] += 1
    return Run(state, MetricsLog(checkpoint.read_metrics(folder), sink, live))


def newest_for_all(uri: str, group: Group) -> str | None:
    """The newest whole checkpoint as rank 0 sees it, so that all ranks load the same."""
    found = [checkpoint.newest(uri) if group.rank == 0 else None]
    if group.world > 1:
        dist.broadcast_object_list(found)
    return found[0]
