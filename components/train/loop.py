"""The training loop: a plain function over a model, an optimizer and an iterator of work, on one process or many ranks.

The loss of a step is the sum of the cross entropies of all its targets, on all ranks, divided by how many they are. So the
same data gives the same gradient on any number of ranks, however it is packed.

Worked example: rank 0 has 30 targets, rank 1 has 10. Each divides its sum by 40; summed over the ranks, the gradient is
that of the mean over the 40 targets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from components.train.data.loader import MicroBatch, StepWork
from components.train.measure.metrics import Gauge, Metrics, TimedWorks, Window, summarise
from components.train.model.parallel import Group
from components.train.update.gradient_sum import BeforeMicroStep, reduction
from components.train.update.optimizer import ShardedAdamW
from components.train.update.schedule import learning_rate

if TYPE_CHECKING:
    from components.train.settings import TrainConfig


Look = Callable[[MicroBatch, Tensor], None]


@dataclass(frozen=True)
class Hooks:
    """What the loop calls, on every rank.

    `veto(work, loss_sum, supervised, norm)` may give a tensor on the device, fp32 []: 1 leaves weights and optimizer as
    they are, 0 updates them. `before_update()` comes between backward and update, `after_step(work)` at the end of a step;
    `on_validation(step)` before the checkpoint of its step. `look(micro, losses)` sees each pack's losses, fp32 [targets].
    """

    on_metrics: Callable[[int, Metrics], None] = lambda step, metrics: None
    on_checkpoint: Callable[[int], None] = lambda step: None
    veto: Callable[[StepWork, Tensor, int, Tensor], Tensor | None] = lambda work, loss_sum, supervised, norm: None
    before_update: Callable[[], None] = lambda: None
    after_step: Callable[[StepWork], None] = lambda work: None
    on_validation: Callable[[int], None] = lambda step: None
    look: Look = lambda micro, losses: None


def train(
    model: nn.Module,
    optimizer: ShardedAdamW,
    works: Iterable[StepWork],
    settings: TrainConfig,
    group: Group,
    hooks: Hooks,
    gauge: Gauge | None = None,
) -> None:
    """Take one optimizer step for each item of work. Every rank calls this with equally many micro-batches."""
    model.train()
    before = reduction(model, last_only=settings.parallel.reduce_last_only, exact=settings.exact_elastic)
    window, arriving = Window(gauge or Gauge()), TimedWorks(works)
    for work in arriving:
        rate = learning_rate(work.step, settings)
        loss_sum, supervised = accumulate(
            model, work, group, settings.seed, look_twice(window.look, hooks.look), before
        )
        hooks.before_update()
        norm = optimizer.step(rate, partial(hooks.veto, work, loss_sum, supervised))
        window.add(work, supervised, arriving.take())
        if work.step in (1, settings.steps) or work.step % settings.log_every == 0:
            hooks.on_metrics(work.step, summarise(window, work, rate, norm, settings, group))
            window = window.next()
        if settings.validate_every and (work.step == settings.steps or work.step % settings.validate_every == 0):
            window.without(partial(hooks.on_validation, work.step))
        if work.step == settings.steps or work.step % settings.checkpoint_every == 0:
            hooks.on_checkpoint(work.step)
        hooks.after_step(work)


def look_twice(first: Look, second: Look) -> Look:
    """Show each pack's losses to two."""

    def look(micro: MicroBatch, losses: Tensor) -> None:
        first(micro, losses)
        second(micro, losses)

    return look


def accumulate(
    model: nn.Module,
    work: StepWork,
    group: Group,
    seed: int,
    look: Look = lambda micro, losses: None,
    before: BeforeMicroStep = lambda n, count: None,
) -> tuple[Tensor, int]:
    """Backward through all micro-batches of a step; the gradients stay on the parameters. `look` sees each pack's losses.

    Returns this rank's sum of cross entropies, fp64 [], and the number of targets over all ranks. Sums of fp32 numbers in
    fp64 are exact as long as the largest is not 2**29 times the smallest, so the order of packs and ranks changes no bit.
    """
    supervised = int(group.sum(sum(micro.supervised for micro in work.micro_batches))[0])
    loss_sum = torch.zeros((), dtype=torch.float64, device=group.device)
    for n, micro in enumerate(work.micro_batches):
        before(n, len(work.micro_batches))
        # Dropped paths depend on the pack only, not on the rank or on what ran before.
        torch.manual_seed(seed * 1_000_003 + micro.number)
        losses = model(micro.batch)
        look(micro, losses)
        loss = losses.sum() * micro.weight
        (loss / max(supervised, 1)).backward()
        loss_sum += loss.detach()
    return loss_sum, supervised
