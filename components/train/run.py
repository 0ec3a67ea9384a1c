"""The numbers of a run over all its attempts, and whether an attempt may resume those of another."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch.distributed as dist
from torch import nn

from components.errors import UserError
from components.train.checkpoints import checkpoint
from components.train.checkpoints.sums import damage, newest_sound
from components.train.data.loader import StepWork
from components.train.effects import of_weights
from components.train.folder import TrainingFolder
from components.train.measure.metrics_log import MetricsLog
from components.train.model.parallel import Group
from components.train.settings import TrainConfig
from components.train.update.optimizer import ShardedAdamW
from components.train.watch.guards import Anomaly, Guard

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Identity:
    """What a run is made of: settings with an effect on the result, data, base model. A resumed run must have the same."""

    settings: Mapping[str, Any]
    plan: str
    shards: str
    base: str

    @classmethod
    def of(cls, settings: TrainConfig, plan: str, shards: str, base: str) -> Identity:
        return cls(json.loads(json.dumps(of_weights(settings))), plan, shards, base)

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """`train.lr: 0.001, now 0.01` for everything that is not as in the state of a checkpoint."""
        then = other.get("settings", {})
        found = [
            f"train.{name}: {then.get(name)!r}, now {self.settings.get(name)!r}"
            for name in sorted(self.settings.keys() | then.keys())
            if self.settings.get(name) != then.get(name)
        ]
        names = {"plan": "the packs of the steps", "shards": "the data set", "base": "the base model"}
        differ = [what for name, what in names.items() if getattr(self, name) != other.get(name)]
        return found or [f"{what} changed" for what in differ]


@dataclass
class Run:
    """`state` is as of this attempt's first step; the rest is what came since."""

    state: dict[str, Any]
    log: MetricsLog
    tokens: int = 0
    media: int = 0
    started: float = field(default_factory=time.time)
    anomalies: list[Anomaly] = field(default_factory=list)
    failed_checkpoints: int = 0

    @property
    def left_out(self) -> set[int]:
        """Steps that a roll-back has left out."""
        return set(self.state["left_out"])

    @property
    def all_anomalies(self) -> list[dict[str, Any]]:
        """The lines of every unsound step of the run."""
        return [*self.state["anomalies"], *(anomaly.line() for anomaly in self.anomalies)]

    @property
    def loss(self) -> float | None:
        """The training loss that was logged last."""
        loss: float | None = self.log.last.get("train/loss", self.state["loss"])
        return loss

    def counted(self, works: Iterable[StepWork]) -> Iterator[StepWork]:
        """The work that is not left out, added up on the way."""
        self.started = time.time()
        for work in works:
            if work.step not in self.left_out:
                self.tokens += work.tokens
                self.media += work.media
                yield work

    def at(self, step: int, optimizer: ShardedAdamW, guard: Guard, group: Group) -> dict[str, Any]:
        """The state after a step: what a checkpoint keeps and the next attempt resumes."""
        seconds = time.time() - self.started
        return {
            **self.state,
            "step": step,
            "updates": optimizer.updates_made(),
            "loss": self.loss,
            "tokens": self.state["tokens"] + self.tokens,
            "media": self.state["media"] + self.media,
            "world_size": group.world,
            "seconds": self.state["seconds"] + seconds,
            "attempt_seconds": seconds,
            "anomalies": self.all_anomalies,
            "failed_checkpoints": self.state.get("failed_checkpoints", 0) + self.failed_checkpoints,
            "recent_losses": guard.state(),
        }


def resume(
    place: TrainingFolder,
    identity: Identity,
    model: nn.Module,
    optimizer: ShardedAdamW,
    group: Group,
    send: Callable[[dict[str, Any]], None] | None,
    rolled_back: Sequence[Anomaly] = (),
) -> Run:
    """The run as the newest whole checkpoint left it, loaded into model and optimizer; a fresh one where there is none.

    Raises UserError, with what is different, for a checkpoint of another run. The steps of `rolled_back` are left out.
    """
    folder = newest_for_all(place.checkpoints, group, send)
    sink, live = (send, place.live_metrics) if group.rank == 0 else (None, None)
    if folder is None:
        counts = {"step": 0, "tokens": 0, "media": 0, "seconds": 0.0, "restarts": 0, "loss": None}
        lists: dict[str, list[Any]] = {"resumed_from": [], "anomalies": [], "left_out": [], "recent_losses": []}
        run = Run({**asdict(identity), **counts, **lists}, MetricsLog("", sink, live))
    else:
        state = checkpoint.read_state(folder)
        if differences := identity.differences(state):
            raise UserError(
                f"{folder} belongs to a training with other settings ({'; '.join(differences)}); "
                "undo the change to resume it, or start afresh with --refresh"
            )
        checkpoint.restore(folder, model, optimizer)
        restarts = state["restarts"] + (not rolled_back)
        resumed = [*state["resumed_from"], folder.rpartition("/")[2]]
        state |= {**asdict(identity), "restarts": restarts, "resumed_from": resumed}
        run = Run(state, MetricsLog(checkpoint.read_metrics(folder) if group.rank == 0 else "", sink, live))
    known = {line["step"] for line in run.state["anomalies"]}
    run.anomalies = [anomaly for anomaly in rolled_back if anomaly.step not in known]
    out = {anomaly.step for anomaly in rolled_back if anomaly.reaction == "roll_back"}
    run.state["left_out"] = sorted(run.left_out | out)
    return run


def newest_for_all(uri: str, group: Group, send: Callable[[dict[str, Any]], None] | None = None) -> str | None:
    """The newest sound checkpoint as rank 0 sees it, so that all ranks load the same; each reads a share of its files."""

    def newest() -> str | None:
        found = [checkpoint.newest(uri) if group.rank == 0 else None]
        if group.world > 1:
            dist.broadcast_object_list(found)
        return found[0]

    def look(folder: str) -> str | None:
        own = damage(folder, group.rank, group.world)
        problems = [own] * group.world
        if group.world > 1:
            dist.all_gather_object(problems, own)
        return next(filter(None, problems), None)

    def say(text: str) -> None:
        log.warning("%s", text)
        if send is not None and group.rank == 0:
            send({"note": text})

    return newest_sound(newest, look, say)
