"""What any rank wants, all ranks do after the same step: a checkpoint now, or to stop.

Each rank sends its signals after a step and reads the union of them after the next one, so that no step waits for the
message. Rank 0 looks for touch files beside the checkpoints (`checkpoint-now`, `stop-now`); every rank hears SIGTERM and
Ctrl-C.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from components.artifacts.files import filesystem, write_bytes
from components.train.model.parallel import Group

CHECKPOINT_NOW = "checkpoint-now"
STOP_NOW = "stop-now"
POLL_SECONDS = 1.0


class Stopped(Exception):
    """Training was asked to stop, and has left a checkpoint of the step that the message names."""


@dataclass
class Signals:
    """What this process wants: set by signals and touch files, taken by the loop."""

    checkpoint: threading.Event = field(default_factory=threading.Event)
    stop: threading.Event = field(default_factory=threading.Event)


class Agreement:
    """The union of all ranks' signals, one step late. All ranks make one, and call it after every step."""

    def __init__(self, group: Group, signals: Signals) -> None:
        self._wishes, self._group = signals, group
        self._pg = dist.new_group(backend="gloo") if group.world > 1 else None
        self._sent: tuple[torch.Tensor, Any] | None = None

    def exchange(self) -> tuple[bool, bool]:
        """Whether any rank wanted (a checkpoint, to stop) at the previous call; sends what this one wants now."""
        agreed = self._received()
        wanted = torch.tensor([self._wishes.checkpoint.is_set(), self._wishes.stop.is_set()], dtype=torch.int32)
        if wanted[0]:
            self._wishes.checkpoint.clear()
        sending = None
        if self._pg is not None:
            sending = dist.all_reduce(wanted, op=dist.ReduceOp.MAX, group=self._pg, async_op=True)
        self._sent = wanted, sending
        return agreed

    def before_first_step(self, step: int, steps: int) -> None:
        """Stopped, where any rank wants to stop before the step after `step`. Waits for all ranks."""
        if self._group.most(float(self._wishes.stop.is_set())):
            kept = f"the checkpoint of step {step} is whole" if step else "nothing was trained yet"
            raise Stopped(f"stopped before step {step + 1} of {steps}; {kept}")

    def close(self) -> tuple[bool, bool]:
        """Receive what is still on its way; all ranks call it after their last step."""
        return self._received()

    def _received(self) -> tuple[bool, bool]:
        if self._sent is None:
            return False, False
        wanted, sending = self._sent
        self._sent = None
        if sending is not None:
            sending.wait()
        return bool(wanted[0]), bool(wanted[1])


def ask(folder: str, name: str) -> None:
    """Leave a touch file for the ranks that train below `folder`."""
    write_bytes(f"{folder}/{name}", b"")


def remove_touch_files(folder: str) -> None:
    """Remove touch files that nobody has taken. Call before the ranks start."""
    fs, path = filesystem(folder)
    for name in (CHECKPOINT_NOW, STOP_NOW):
        with contextlib.suppress(FileNotFoundError):
            fs.rm_file(f"{path}/{name}")


@contextlib.contextmanager
def touch_files(folder: str, signals: Signals, group: Group) -> Iterator[None]:
    """While the block runs, rank 0 turns touch files in `folder` into signals."""
    ended = threading.Event()

    def watch() -> None:
        fs, path = filesystem(folder)
        while not ended.wait(POLL_SECONDS):
            for name, wish in ((CHECKPOINT_NOW, signals.checkpoint), (STOP_NOW, signals.stop)):
                with contextlib.suppress(Exception):  # a store that is away for a moment; the next look finds the file
                    if fs.exists(f"{path}/{name}"):
                        fs.rm_file(f"{path}/{name}")
                        wish.set()

    thread = threading.Thread(target=watch, name="touch-files", daemon=True)
    if group.rank == 0:
        thread.start()
    try:
        yield
    finally:
        ended.set()


@contextlib.contextmanager
def signals_stop(signals: Signals) -> Iterator[None]:
    """While the block runs, SIGTERM and Ctrl-C ask for a checkpoint and the end. Only a main thread can listen.

    A second Ctrl-C ends at once, but for ranks of `torchrun`: they hear one from the terminal and one from their agent.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        if number == signal.SIGINT and signals.stop.is_set() and "TORCHELASTIC_RUN_ID" not in os.environ:
            raise KeyboardInterrupt
        signals.stop.set()

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def polled(wanted: Callable[[], bool] | None, signals: Signals) -> Iterator[None]:
    """While the block runs, ask `wanted` every second whether this machine is about to go away."""
    ended = threading.Event()

    def watch() -> None:
        while wanted is not None and not ended.wait(POLL_SECONDS):
            with contextlib.suppress(Exception):
                if wanted():
                    signals.checkpoint.set()
                    return

    thread = threading.Thread(target=watch, name="preemption", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
