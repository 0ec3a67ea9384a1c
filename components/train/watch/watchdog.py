"""A rank that hangs is named, with its stack, while the others wait for it; then the attempt ends and is started again.

Every rank's watchdog puts its position (counted up by the loop) and the stacks of its threads into a store that all ranks
see, each second. When nothing has moved for `hang_seconds`, the ranks that still run look a few seconds at who

    is silent      its watchdog says nothing either: the process is stopped, or its machine is gone
    is behind      it has counted less than the others
    is elsewhere   all have counted the same, and it is not inside a collective operation

A silent rank is given up at once, one that lives after four times as long. The report lies in `hangs/` beside the
checkpoints. A long step is no hang: the limit is never below five times the longest step so far.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator

from components.train.model.parallel import Group
from components.train.watch.hang_report import (
    Heartbeat,
    behind,
    describe,
    end_process,
    stacks_of_this_process,
    write_report,
)
from components.train.watch.heartbeats import SignStore

HANG_STATUS = 70  # exit status of a process that gave its attempt up
PERIOD_SECONDS = 1.0
SUSPECT_SECONDS = 8.0  # from when nothing moved for too long to a verdict
SILENT_SECONDS = 6.0
STOP_SECONDS = 10.0
REPORT_SECONDS = 3.0  # that the others leave the one that writes the report
FIRST_STEP_FACTOR = 10  # compilation and imports
LONGEST_STEP_FACTOR = 5
PATIENCE = 4
log = logging.getLogger(__name__)


def give_up() -> None:
    """End this process at once: its main thread is inside an operation that will not return."""
    os._exit(HANG_STATUS)


class Watchdog:
    """Watches the ranks of a group. `beat()` and `step_done()` are the loop's and cost nothing; the rest is a thread's.

    All ranks make one. `hang_seconds` 0 watches nothing. Once `stopping` is set, a rank that cannot take another step,
    because another one has died, ends by itself. `first_steps` are those that may take long, as compilation does.
    """

    def __init__(
        self,
        group: Group,
        hang_seconds: float,
        folder: str,
        stopping: threading.Event | None = None,
        end: Callable[[], None] = give_up,
        first_steps: int = 1,
    ) -> None:
        self.stopping = stopping or threading.Event()
        self.group, self.hang_seconds, self.folder, self.end = group, hang_seconds, folder, end
        self.position, self.pauses, self.longest = 0, 0, 0.0
        self.moved = time.monotonic()
        self._first_steps = self._slow_steps = first_steps
        self._step_began: float | None = None
        self._suspected: float | None = None  # when nothing had moved for too long
        self._reported = False
        self._store = SignStore(group) if hang_seconds else None

    def beat(self) -> None:
        """The loop has come further."""
        self.position += 1
        self.moved = time.monotonic()

    def step_done(self) -> None:
        """A step is complete; its length says what is long."""
        now = time.monotonic()
        if self._slow_steps:
            self._slow_steps -= 1
        elif self._step_began is not None:
            self.longest = max(self.longest, now - self._step_began)
        self._step_began = now
        self.beat()

    def begin_again(self) -> None:
        """The steps to come are the first ones of another attempt."""
        self._slow_steps, self._step_began = self._first_steps, None
        self.beat()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Around what takes long by nature, and is waited for with other means."""
        self.pauses += 1
        try:
            yield
        finally:
            self.pauses -= 1
            if self._step_began is not None:
                self._step_began = time.monotonic()
            self.beat()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch while the block runs."""
        if self._store is None:
            yield
            return
        ended = threading.Event()
        self.beat()
        for work in (self._tell, self._look):
            threading.Thread(target=every, args=(PERIOD_SECONDS, work, ended), name="watchdog", daemon=True).start()
        try:
            yield
        finally:
            ended.set()

    @property
    def limit(self) -> float:
        """Seconds without a move that are a hang."""
        if self._slow_steps:
            return FIRST_STEP_FACTOR * self.hang_seconds
        return max(self.hang_seconds, LONGEST_STEP_FACTOR * self.longest)

    def _tell(self) -> None:
        """Say where this rank is. Blocks, in a thread of its own, when rank 0, which keeps the store, is stopped."""
        assert self._store is not None
        sign = Heartbeat.of_this_process(self.group.rank, self.position, self.pauses > 0)
        self._store.exchange(sign, stacks_of_this_process(), want_all=self._suspected is not None)

    def _look(self) -> None:
        """See whether this rank waits for another one, and act on it."""
        now = time.monotonic()
        still = now - self.moved
        if self.stopping.is_set() and not self.pauses and still > max(STOP_SECONDS, 2 * self.longest):
            self.end()
        if self.pauses or still < self.limit:
            self._suspected, self._reported = None, False
            return
        if self._suspected is None:
            self._suspected = now
        if now - self._suspected < SUSPECT_SECONDS:
            return
        assert self._store is not None
        signs, silent = self._store.since(now - SILENT_SECONDS)
        if any(sign.paused for sign in signs.values()):
            return
        named = silent or behind(signs)
        if not self._reported:
            self._report(signs, named, silent, still)
        if silent or still > PATIENCE * self.limit:
            for rank in silent:
                if rank in signs:
                    end_process(signs[rank])
            self.end()

    def _report(self, signs: dict[int, Heartbeat], named: list[int], silent: list[int], still: float) -> None:
        assert self._store is not None
        self._reported = True
        writer = min(set(range(self.group.world)) - set(silent), default=self.group.rank)
        text = describe(signs, named, silent, still, self._store.stacks if self.group.rank == writer else None)
        log.error("%s", text.splitlines()[0])
        if self.group.rank == writer:
            with contextlib.suppress(Exception):  # without a place for the report, the log has its first line
                write_report(self.folder, text)
        else:
            time.sleep(REPORT_SECONDS)


def every(seconds: float, work: Callable[[], None], ended: threading.Event) -> None:
    """Call `work` until the end; one that fails is tried again."""
    while not ended.wait(seconds):
        try:
            work()
        except Exception as error:
            log.debug("watchdog: %s", error)
