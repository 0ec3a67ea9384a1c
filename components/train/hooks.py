"""What a rank does beside its steps: checkpoints, guards, the watchdog, and what anyone asks for in between."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.artifacts.files import write_bytes
from components.errors import UserError
from components.train.checkpoints.saver import Saver
from components.train.data.loader import StepWork
from components.train.loop import Hooks
from components.train.measure.metrics import Metrics
from components.train.measure.profiler import Profiler
from components.train.model.parallel import Group
from components.train.run import Run
from components.train.settings import TrainConfig
from components.train.update.optimizer import ShardedAdamW
from components.train.watch.guards import Guard, react
from components.train.watch.signals import Agreement, Stopped
from components.train.watch.watchdog import Watchdog

RETRY_SECONDS = 5.0
ANOMALIES = "anomalies.jsonl"


@dataclass
class RankHooks:
    """The hooks of the loop, on every rank."""

    settings: TrainConfig
    run: Run
    optimizer: ShardedAdamW
    saver: Saver
    guard: Guard
    watchdog: Watchdog
    agreement: Agreement
    profiler: Profiler
    group: Group
    folder: str  # for what people look at while it trains
    validate: Callable[[], float] | None = None  # the loss on the test split
    saved: int = 0  # the step of the checkpoint that was begun last
    measured: tuple[int, float] | None = None  # the last step that was validated, and its loss
    told: int = 0  # failed checkpoints that the log knows of

    def hooks(self) -> Hooks:
        return Hooks(
            on_metrics=self._log,
            on_checkpoint=self._save_at_interval,
            veto=self.guard.veto,
            before_update=self.saver.wait_copied,
            after_step=self._after_step,
            look=self.guard.look,
            on_validation=self._validate,
        )

    def arriving(self, works: Iterable[StepWork]) -> Iterator[StepWork]:
        """The same work; the watchdog hears that it has come."""
        for work in works:
            self.watchdog.beat()
            yield work

    def finish(self) -> None:
        """Wait for the checkpoint of the last step, and save_with_patience on it."""
        with self.watchdog.paused():
            self.profiler.close()
            self.agreement.close()
            if self.saved != self.settings.steps:
                self._save(self.settings.planned_steps)
            save_with_patience(self.saver, self._save_last, self.settings.checkpoint_patience_s)
            self._tell_failures()

    def _save_last(self, seconds_left: float) -> None:
        """Try the last checkpoint once more."""
        self._tell_failures(f"trying again for {seconds_left:.0f} s")
        self._save(self.settings.planned_steps)

    def _log(self, step: int, metrics: Metrics) -> None:
        self._judge()
        self.run.log.append(step, metrics)

    def _validate(self, step: int) -> None:
        if self.validate is not None:
            with self.watchdog.paused():
                self.measured = step, self.validate()
            self.run.log.append(step, {"val/loss": self.measured[1]})

    def _save_at_interval(self, step: int) -> None:
        with self.watchdog.paused():
            self.saver.wait()
        self._tell_failures()
        if step < self.settings.planned_steps:  # what is trained to its end is not given up: see `save_with_patience`
            require_some(self.saver, step, self.settings.max_failed_checkpoints)
        self._save(step)

    def _save(self, step: int) -> None:
        self._judge()
        with self.watchdog.paused():
            self.saver.wait()
            self._tell_failures()
            state = self.run.at(step, self.optimizer, self.guard, self.group)
            self.saver.start({**state, "score": self._score(step)}, self.run.log.text)
        self.saved = step

    def _tell_failures(self, then: str = "training goes on") -> None:
        """Put a checkpoint that could not be written into the log, and so on the screen and to the tracker."""
        failure, failed = self.saver.failure, self.saver.failed
        if failure is not None and failed > self.told:
            self.told = self.run.failed_checkpoints = failed
            text = f"no checkpoint of step {self.saved} could be written ({failed} so far): {failure}; {then}"
            self.run.log.append(self.saved, {"train/failed_checkpoints": failed}, text)

    def _score(self, step: int) -> float | None:
        """What a checkpoint of now is measured by: a validation of this very step, where there is one at times."""
        if self.validate is None:
            return self.run.loss
        return self.measured[1] if self.measured and self.measured[0] == step else None

    def _judge(self) -> None:
        found = self.guard.read()
        so_far = len(self.run.all_anomalies)
        self.run.anomalies += found
        if found and self.group.rank == 0:
            write_anomalies(self.folder, self.run.all_anomalies)
        react(found, so_far, self.settings.guards.max_unsound_steps)

    def _after_step(self, work: StepWork) -> None:
        self.watchdog.step_done()
        with self.watchdog.paused():  # a trace of a GPU's steps takes minutes to write
            self.profiler.after_step(work.step)
        self._tell_failures()
        checkpoint, stop = self.agreement.exchange()
        if stop and work.step != self.settings.steps:
            self._leave(work.step)
        elif checkpoint and work.step != self.saved:
            self._save(work.step)

    def _leave(self, step: int) -> None:
        with self.watchdog.paused():
            self.profiler.close()
            if step != self.saved:
                self._save(step)
            failure = self.saver.wait()
        kept = f"no checkpoint of it could be written: {failure}" if failure else "its checkpoint is whole"
        raise Stopped(f"stopped after step {step} of {self.settings.steps}; {kept}")


def write_anomalies(folder: str, lines: Sequence[Mapping[str, Any]]) -> None:
    """Leave all unsound steps of the run, with all of their records, beside the checkpoints."""
    write_bytes(f"{folder}/{ANOMALIES}", "".join(json.dumps(line) + "\n" for line in lines).encode())


def require_some(saver: Saver, step: int, most: int) -> None:
    """UserError when so many checkpoints in a row could not be written that training further would be for nothing."""
    if saver.failed_in_a_row >= most:
        raise UserError(
            f"{saver.failed_in_a_row} checkpoints in a row could not be written, so training ends at step {step} "
            f"(train.max_failed_checkpoints={most}): {saver.failure}"
        )


def save_with_patience(saver: Saver, save: Callable[[float], None], patience_s: float) -> None:
    """Wait for the last checkpoint; a failed one is tried again for so long, then it is a UserError.

    `save(seconds_left)` begins it anew.
    """
    tries = int(patience_s / RETRY_SECONDS)
    for number in range(tries):
        if saver.wait() is None:
            return
        time.sleep(RETRY_SECONDS)
        save((tries - number) * RETRY_SECONDS)
    if failure := saver.wait():
        raise UserError(f"the last checkpoint could not be written: {failure}")
