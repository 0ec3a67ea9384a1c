"""A loss or gradient that is not a number, or a sudden spike, never reaches the weights; the settings say what follows.

Whether a step is sound is decided on the device, from numbers that are the same on all ranks: the norm of the gradient,
and, where spikes are looked for, the loss against the median of those before. An unsound step leaves weights and
optimizer to the last bit as they were, without anyone waiting for the device. At the next log point or checkpoint, where
the loop waits anyway, the host reads the verdicts and

    skips        training goes on; the step counts as taken
    rolls back   to the newest checkpoint; its step is left out this time
    stops        TrainingDiverged, which no launcher tries again

with the records of the step in the report, those of the packs with the highest loss first.

Worked example, factor 3, window 4: losses 2.0 1.0 1.2 1.1 have the median 1.15; a step of 3.4 is above it, and below 3.45
passes; one of 3.6 is a spike. A spike does not enter the window.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from components.train.data.loader import MicroBatch, StepWork
from components.train.model.parallel import Group

if TYPE_CHECKING:
    from components.train.sections import GuardSettings

IDS_IN_MESSAGE = 8
log = logging.getLogger(__name__)


class TrainingDiverged(RuntimeError):
    """Loss or gradient were not finite, or spiked, and the settings say to stop; the message names step and records."""


class RollBack(Exception):
    """Training goes back to the newest checkpoint; `anomalies` are the steps to leave out."""

    def __init__(self, anomalies: Sequence[Anomaly]) -> None:
        super().__init__(", ".join(str(anomaly.step) for anomaly in anomalies))
        self.anomalies = list(anomalies)


@dataclass(frozen=True)
class Anomaly:
    """An unsound step. `ids` are its records over all ranks, those of the worst packs first; numbers are None if not finite."""

    step: int
    kind: str  # "nonfinite" or "spike"
    loss: float | None
    grad_norm: float | None
    reaction: str
    ids: tuple[str, ...]

    def line(self) -> dict[str, Any]:
        """As a line of `anomalies.jsonl`."""
        return {**asdict(self), "ids": list(self.ids)}

    def __str__(self) -> str:
        more = f" and {len(self.ids) - IDS_IN_MESSAGE} more" if len(self.ids) > IDS_IN_MESSAGE else ""
        what = "loss or gradient is not a finite number" if self.kind == "nonfinite" else "the loss spikes"
        records = ", ".join(self.ids[:IDS_IN_MESSAGE]) + more
        return f"step {self.step}: {what} (loss {self.loss}, gradient norm {self.grad_norm}); records {records}"


@dataclass
class Judged:
    """A step whose verdict the host has not read yet."""

    step: int
    packs: list[tuple[tuple[str, ...], Tensor]]  # ids of a pack of this rank, its highest loss
    numbers: Tensor  # fp32 [4]: not finite, spike, loss (this rank's share, or all of it where spikes count), norm


class Guard:
    """Judges every step. All ranks make one and call it alike."""

    def __init__(self, settings: GuardSettings, group: Group) -> None:
        self.settings, self.group = settings, group
        self._watches_spikes = settings.on_spike != "ignore"
        self.recent = torch.full((settings.spike_window,), math.nan, device=group.device)
        self._packs: list[tuple[tuple[str, ...], Tensor]] = []
        self._judged: list[Judged] = []

    def look(self, micro: MicroBatch, losses: Tensor) -> None:
        """Note the losses of a pack of the step that is running, fp32 [targets]."""
        if micro.weight and losses.numel():
            self._packs.append((micro.ids, losses.detach().max()))

    def veto(self, work: StepWork, loss_sum: Tensor, supervised: int, norm: Tensor) -> Tensor:
        """fp32 [], 1 for a step that must not change anything. The same on all ranks."""
        loss = loss_sum.detach().float() / max(supervised, 1)  # this rank's share of it
        nonfinite = ~torch.isfinite(norm)  # a bad loss on any rank spoils the norm of all
        spike = torch.zeros_like(nonfinite)
        if self._watches_spikes:
            if self.group.world > 1:
                dist.all_reduce(loss)
            nonfinite |= ~torch.isfinite(loss)
            spike = self._is_spike(loss) & ~nonfinite
            shifted = torch.cat([self.recent[1:], loss.reshape(1)])
            self.recent = torch.where(nonfinite | spike, self.recent, shifted)
        numbers = torch.stack([nonfinite.float(), spike.float(), loss, norm.float()])
        self._judged.append(Judged(work.step, self._packs, numbers))
        self._packs = []
        return (nonfinite | spike).float()

    def _is_spike(self, loss: Tensor) -> Tensor:
        """bool []: the loss is above the median of at least half a window by the factor."""
        known = (~self.recent.isnan()).sum() * 2 >= len(self.recent)
        return known & (loss > self.settings.spike_factor * self.recent.nanmedian())

    def read(self) -> list[Anomaly]:
        """The anomalies since the last call, the same on all ranks. Waits for the device."""
        judged, self._judged = self._judged, []
        if not judged:
            return []
        rows = torch.stack([step.numbers for step in judged]).tolist()
        unsound = [(step, row) for step, row in zip(judged, rows, strict=True) if row[0] or row[1]]
        return [self._anomaly(step, *row) for step, row in unsound]

    def _anomaly(self, judged: Judged, nonfinite: float, spike: float, loss: float, norm: float) -> Anomaly:
        share = [(ids, float(worst)) for ids, worst in judged.packs], loss
        gathered: list[Any] = [share]
        if self.group.world > 1:
            gathered = [None] * self.group.world
            dist.all_gather_object(gathered, share)
        ordered = sorted((pack for packs, _ in gathered for pack in packs), key=lambda p: -finite_or(p[1], math.inf))
        if not self._watches_spikes:
            loss = sum(part for _, part in gathered)
        kind = "nonfinite" if nonfinite else "spike"
        reaction = self.settings.on_nonfinite if nonfinite else self.settings.on_spike
        ids = tuple(name for pack, _ in ordered for name in pack)
        return Anomaly(judged.step, kind, finite_or(loss, None), finite_or(norm, None), reaction, ids)

    def state(self) -> list[float | None]:
        """The losses that spikes are measured against, for the next attempt."""
        return [finite_or(value, None) for value in self.recent.tolist()] if self._watches_spikes else []

    def resume(self, state: Sequence[float | None]) -> None:
        """Go on from a state; one of another window is left."""
        self._judged, self._packs = [], []
        values = [math.nan if value is None else value for value in state]
        fitting = values if len(values) == len(self.recent) else [math.nan] * len(self.recent)
        self.recent = torch.tensor(fitting, dtype=torch.float32, device=self.group.device)


def react(anomalies: Sequence[Anomaly], so_far: int, most: int) -> None:
    """Do what the settings say: TrainingDiverged, RollBack, or a warning. `most` anomalies in a run are enough."""
    if not anomalies:
        return
    for anomaly in anomalies:
        log.warning("%s: %s", anomaly.reaction, anomaly)
    if any(anomaly.reaction == "stop" for anomaly in anomalies):
        raise TrainingDiverged(f"{anomalies[0]}. Try a lower train.lr, or set train.guards to skip or roll_back")
    if so_far + len(anomalies) > most:
        raise TrainingDiverged(
            f"{so_far + len(anomalies)} unsound steps are more than train.guards.max_unsound_steps={most}: {anomalies[-1]}"
        )
    if any(anomaly.reaction == "roll_back" for anomaly in anomalies):
        raise RollBack(anomalies)


def finite_or(value: float, other: Any) -> Any:
    return value if math.isfinite(value) else other
