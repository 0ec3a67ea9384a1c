"""What a person sees while a run goes on: one line a step, rewritten in place on a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from typing import TextIO

from components.artifacts import filesystem

QUIET_SECONDS = 5.0  # between lines of one step where the output is no terminal


class Progress:
    """Writes to stderr, so that stdout stays free for results."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._started = time.monotonic()
        self._last = 0.0
        self._open_line = False
        self._relayed = self._shown = ""

    def say(self, step: str, text: str) -> None:
        """A line that stays."""
        self._close_line()
        self._stream.write(f"{self._prefix(step)}{text}\n")
        self._stream.flush()

    def update(self, step: str, text: str) -> None:
        """A line that the next one replaces; without a terminal, at most one every few seconds, and none twice."""
        now = time.monotonic()
        if self._stream.isatty():
            self._stream.write(f"\r\x1b[2K{self._prefix(step)}{text}")
            self._open_line = True
        elif text != self._shown and now - self._last >= QUIET_SECONDS:
            self._stream.write(f"{self._prefix(step)}{text}\n")
            self._last, self._shown = now, text
        self._stream.flush()

    def relay(self, step: str, uri: str) -> None:
        """Show what a step elsewhere wrote with `publish_progress`."""
        try:
            fs, path = filesystem(uri)
            text = json.loads(fs.cat_file(path))["text"]
        except Exception:  # not there yet, or storage hiccups: what is only shown must not stop what runs
            return
        if text != self._relayed:
            self._relayed = text
            self.update(step, text)

    def _prefix(self, step: str) -> str:
        seconds = int(time.monotonic() - self._started)
        return f"{seconds // 60:3d}:{seconds % 60:02d}  {step:<14}"

    def _close_line(self) -> None:
        if self._open_line:
            self._stream.write("\n")
            self._open_line = False


def publish_progress(uri: str, text: str) -> None:
    """Leave a line where another machine's `Progress.relay` finds it; a failure is of no account."""
    with contextlib.suppress(Exception):
        fs, path = filesystem(uri)
        if "://" not in uri:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        fs.pipe_file(path, json.dumps({"text": text, "time": time.time()}).encode())
