"""What a person sees of a run: one line a step, rewritten in place on a terminal, now and then in a kept log."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from components.artifacts.files import read_json, write_json
from components.terminal_text import one_line

QUIET_SECONDS = 5.0  # between lines of one step where the output is no terminal
RECORD_SECONDS = 10.0  # between those in a log that is kept


class Progress:
    """Writes to stderr, so that stdout stays free for results."""

    def __init__(self, stream: TextIO | None = None, record: Callable[[str], None] | None = None) -> None:
        self._stream = stream or sys.stderr
        self._started = time.monotonic()
        self._last = 0.0
        self._open_line = False
        self._relayed = self._shown = self._recorded = ""
        self._record, self._recorded_at = record, 0.0
        self._waiting: tuple[str, str] | None = None

    def say(self, step: str, text: str) -> None:
        """A line that stays."""
        text = one_line(text)
        self._to_record(step, text)
        self._close_line()
        self._stream.write(f"{self._prefix(step)}{text}\n")
        self._stream.flush()

    def update(self, step: str, text: str) -> None:
        """A line that the next one replaces; without a terminal, at most one every few seconds, and none twice."""
        now, text = time.monotonic(), one_line(text)
        self._waiting = step, text
        if now - self._recorded_at >= RECORD_SECONDS:
            self._to_record(step, text)
        if self._stream.isatty():
            self._stream.write(f"\r\x1b[2K{self._prefix(step)}{text}")
            self._open_line = True
        elif text != self._shown and now - self._last >= QUIET_SECONDS:
            self._stream.write(f"{self._prefix(step)}{text}\n")
            self._last, self._shown = now, text
        self._stream.flush()

    @contextlib.contextmanager
    def recorded_by(self, record: Callable[[str], None]) -> Iterator[None]:
        """Inside the block, lines go to this log; the last one of the block, too, which says how it ended."""
        before, self._record = self._record, record
        try:
            yield
            if self._waiting:
                self._to_record(*self._waiting)
        finally:
            self._record = before

    def _to_record(self, step: str, text: str) -> None:
        self._waiting = None
        line = f"{step}: {text}"
        if self._record and line != self._recorded:
            self._record(line)
            self._recorded, self._recorded_at = line, time.monotonic()

    def relay(self, step: str, uri: str) -> None:
        """Show what a step elsewhere wrote with `publish_progress`."""
        try:
            text = (read_json(uri) or {})["text"]
        except Exception:  # not there yet, or storage hiccups: what is only shown must not stop what runs
            return
        if text != self._relayed:
            self._relayed = text
            self.update(step, text)

    def _prefix(self, step: str) -> str:
        seconds = int(time.monotonic() - self._started)
        return f"{seconds // 60:3d}:{seconds % 60:02d}  {step:<18}"

    def _close_line(self) -> None:
        if self._open_line:
            self._stream.write("\n")
            self._open_line = False


def publish_progress(uri: str, text: str) -> None:
    """Leave a line where another machine's `Progress.relay` finds it; a failure is of no account."""
    with contextlib.suppress(Exception):
        write_json(uri, {"text": text, "time": time.time()})
