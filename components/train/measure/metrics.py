"""The metrics of a window of steps: every target, token and item of media since the last line, on all ranks, equally weighted.

Nothing here waits for the device but `summarise`, which the loop calls at log points only.

Worked example: in a window, source a had 30 targets with losses summing to 60, source b 10 with 40. `train/loss/a` is 2,
`train/loss/b` is 4, and `train/loss` is (60 + 40) / 40 = 2.5, the mean of the two weighted by their targets.
"""

from __future__ import annotations

import math
import re
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from components.train.data.loader import MicroBatch, StepWork
from components.train.model.feature_cache import FeatureCache
from components.train.model.parallel import Group
from components.train.model.towers import HasTowers
from plm_model.nn.cost import StepCost, peak_flops
from plm_model.packs.example import NO_TARGET

if TYPE_CHECKING:
    from components.train.settings import TrainConfig

Metrics = dict[str, float]
GIB = 2**30


@dataclass(frozen=True)
class Gauge:
    """What a window is measured against: the names of the sources, what useful work costs, the device's FLOP/s.

    Without a cost or a peak there is no MFU; without sources, no loss by source.
    """

    sources: tuple[str, ...] = ()
    cost: StepCost | None = None
    peak: float | None = None

    @classmethod
    def of(cls, model: HasTowers, cost: StepCost, sources: Iterable[str], device: torch.device) -> Gauge:
        """The gauge of a model on a device, a step of which costs `cost`; all ranks number alike the `sources` of the data set.

        No MFU beside a cache of features: it would count work that is not done.
        """
        cached = any(isinstance(encoder.forward, FeatureCache) for encoder in model.encoders().values())
        known = device.type == "cuda" and not cached
        peak = peak_flops(torch.cuda.get_device_name(device)) if known else None
        return cls(tuple(sorted(set(sources))), cost, peak)

    def numbers(self, micro: MicroBatch) -> Tensor:
        """The number of the source of each target of a pack, int64 [targets]; 0 for all where sources are not told apart."""
        known = {source: number for number, source in enumerate(self.sources)}
        of_document = torch.tensor([known.get(source, 0) for source in micro.sources or ("",)])
        documents = micro.batch.doc[micro.batch.targets != NO_TARGET] - 1
        return of_document[documents.clamp(max=len(of_document) - 1)]


@dataclass
class Window:
    """What has happened since the last line of metrics."""

    gauge: Gauge = field(default_factory=Gauge)
    supervised: int = 0  # targets, tokens and media of all ranks
    tokens: int = 0
    media: int = 0
    steps: int = 0
    rejected: int = 0  # examples of this rank that could not be read
    waited: float = 0.0  # seconds without data
    aside: float = 0.0  # seconds that are not training
    started: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        kinds = max(len(self.gauge.sources), 1)
        self.losses = torch.zeros(kinds, dtype=torch.float64)  # of this rank's targets, by source; moves to the device
        self.targets = torch.zeros(kinds, dtype=torch.float64)
        self.squares = self.positions = 0
        self._step: list[tuple[MicroBatch, Tensor, Tensor]] = []

    def look(self, micro: MicroBatch, losses: Tensor) -> None:
        """Note the losses of a pack of the step that is running, fp32 [targets]."""
        numbers = self.gauge.numbers(micro)
        self._step.append((micro, numbers, by_source(losses.detach(), numbers, len(self.targets))))

    def add(self, work: StepWork, supervised: int, waited: float = 0.0) -> None:
        """Count the step that was looked at. One that is dropped instead leaves no trace."""
        for micro, numbers, losses in self._step:
            self.positions += len(micro.batch.tokens)
            if micro.weight:
                # Packs whose loss is no number are for the guard to report; here they would hide all others.
                sound = losses.isfinite().all()
                self.losses = torch.where(sound, losses, 0.0) + self.losses.to(losses.device, non_blocking=True)
                counts = torch.bincount(numbers, minlength=len(self.targets)).to(losses.device, non_blocking=True)
                self.targets = counts * sound + self.targets.to(losses.device, non_blocking=True)
                self.squares += int(torch.bincount(micro.batch.doc).square().sum())
        self.supervised += supervised
        self.tokens += work.tokens
        self.media += work.media
        self.steps += 1
        self.rejected += len(work.rejected)
        self.waited += waited
        self.drop()

    def drop(self) -> None:
        """Forget the step that was looked at."""
        self._step = []

    def without(self, call: Callable[[], None]) -> None:
        """Make a call whose time is not training time."""
        started = time.perf_counter()
        call()
        self.aside += time.perf_counter() - started

    def next(self) -> Window:
        """An empty window that begins now."""
        return Window(self.gauge)


def by_source(losses: Tensor, numbers: Tensor, sources: int) -> Tensor:
    """Sum of the losses of each source: fp64 [sources]. Adds in a fixed order, so that the same pack gives the same bits."""
    sums = torch.zeros(sources, dtype=torch.float64, device=losses.device)
    here = numbers.to(losses.device, non_blocking=True)
    for number in numbers.unique().tolist():
        sums[number] = torch.where(here == number, losses, 0.0).double().sum()
    return sums


class TimedWorks:
    """Iterates over `works` and adds up the seconds that each took to come, in `seconds`."""

    def __init__(self, works: Iterable[StepWork]) -> None:
        self.works, self.seconds = works, 0.0

    def __iter__(self) -> Iterator[StepWork]:
        started = time.perf_counter()
        for work in self.works:
            self.seconds += time.perf_counter() - started
            yield work
            started = time.perf_counter()

    def take(self) -> float:
        """The seconds since the last call."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds


def summarise(
    window: Window, work: StepWork, rate: float, norm: Tensor, settings: TrainConfig, group: Group
) -> Metrics:
    """The metrics of a window over all ranks, the same on each of them. Waits for the device.

    Seconds are this rank's; memory is that of the rank that has used most.
    """
    kinds = len(window.targets)
    device_sums = (*window.losses.tolist(), *window.targets.tolist())
    seconds = max(time.perf_counter() - window.started - window.aside, 1e-9)  # after the wait: the device's time counts
    own = (*device_sums, window.squares, window.positions, window.waited, window.rejected)
    *sums, squares, positions, waited, rejected = group.sum(*own)
    losses, targets = sums[:kinds], sums[kinds:]
    loss = sum(losses) / sum(targets) if any(targets) else math.nan
    return {
        "train/loss": loss,
        **{f"train/loss/{metric_part(source)}": losses[n] / targets[n] for n, source in seen(window.gauge, targets)},
        "train/lr": rate,
        **({"train/grad_norm": float(norm)} if math.isfinite(norm) else {}),
        "train/tokens_per_s": window.tokens / seconds,
        "train/media_per_s": window.media / seconds,
        **utilisation(window, squares, seconds * group.world),
        "train/rejected_examples": rejected,
        "train/padding": 1 - window.tokens / max(positions, 1),
        "train/data_wait": waited / (seconds * group.world),
        "train/memory_gib": group.most(memory(group.device)) / GIB,
        "train/eta_s": (settings.planned_steps - work.step) * seconds / window.steps,
        "train/epoch": work.epoch,
    }


def seen(gauge: Gauge, targets: Sequence[float]) -> list[tuple[int, str]]:
    """Number and name of each source that had a target."""
    return [(n, source) for n, source in enumerate(gauge.sources) if targets[n]]


def utilisation(window: Window, squares: float, device_seconds: float) -> Metrics:
    """Useful FLOPs over those that the devices could have done, where both are known."""
    cost, peak = window.gauge.cost, window.gauge.peak
    if cost is None or peak is None:
        return {}
    useful = cost.of_sums(window.tokens, squares, window.media, window.supervised)
    return {"train/mfu": useful / (device_seconds * peak)}


def memory(device: torch.device) -> float:
    """Bytes: the most that was allocated on a GPU so far, or the largest resident size of this process."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024.0)


def metric_part(source: str) -> str:
    """The name of a source in that of a metric: MLflow takes letters, digits and `_-./ :` only."""
    return re.sub(r"[^\w\-./ :]", "_", source, flags=re.ASCII)
