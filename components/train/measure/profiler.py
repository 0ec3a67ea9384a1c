"""Traces a few steps of a training on demand, in the loop that trains, and leaves the others as fast as they are.

Steps are traced that the settings name (`train.profile`), or those after someone has put a file `profile` beside the
checkpoints; it may hold how many. Rank 0 writes `profiles/step-00000010/`: `trace.json.gz`, which https://ui.perfetto.dev
and chrome://tracing show, and on a GPU `memory.pickle`, which https://pytorch.org/memory_viz shows.
"""

from __future__ import annotations

import logging
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.profiler import ProfilerActivity, profile

from components.artifacts.files import filesystem
from components.train.folder import PROFILES
from components.train.model.parallel import Group

if TYPE_CHECKING:
    from components.train.sections import ProfileSettings

REQUEST = "profile"
LOOK_SECONDS = 10.0  # between two looks for the file: it may lie on an object store
STEPS = 3  # traced for a file that names no number
MEMORY_EVENTS = 100_000

log = logging.getLogger(__name__)


class Profiler:
    """Call `after_step` at the end of every step. `uri` is the training's folder."""

    def __init__(self, uri: str, settings: ProfileSettings | None, group: Group, next_step: int) -> None:
        self.uri, self.group = uri, group
        self._active = group.rank == 0
        self._looked = time.monotonic()
        self._trace: Any = None
        self._first = self._last = 0
        if settings is not None and settings.first >= next_step:
            self._first, self._last = settings.first, settings.first + settings.steps - 1
        self._begin_before(next_step)

    def after_step(self, step: int) -> None:
        """Begin or end a trace where it is time. A trace that fails is given up, and the training goes on."""
        if not self._active:
            return
        if self._trace is None and step >= self._last and (steps := self._requested()):
            self._first, self._last = step + 1, step + steps
        if self._trace is not None and step == self._last:
            self.close()
        self._begin_before(step + 1)

    def close(self) -> None:
        """End a trace that is running, and write it."""
        trace, self._trace = self._trace, None
        if trace is None:
            return
        try:
            trace.stop()
            self._write(trace)
        except Exception as error:  # of the profiler, or of the storage
            log.warning("the trace of step %d is lost: %s", self._first, error)

    def _begin_before(self, step: int) -> None:
        if not self._active or step != self._first:
            return
        cuda = self.group.device.type == "cuda"
        try:
            if cuda:
                torch.cuda.memory._record_memory_history(max_entries=MEMORY_EVENTS)
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
            trace = profile(activities=activities, record_shapes=True, profile_memory=True)
            trace.start()
        except Exception as error:
            log.warning("no trace of step %d: %s", step, error)
            return
        self._trace = trace

    def _write(self, trace: Any) -> None:
        fs, path = filesystem(f"{self.uri}/{PROFILES}/step-{self._first:08d}")
        fs.makedirs(path, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder)
            trace.export_chrome_trace(str(local / "trace.json.gz"))
            if self.group.device.type == "cuda":
                torch.cuda.memory._dump_snapshot(str(local / "memory.pickle"))
                torch.cuda.memory._record_memory_history(enabled=None)
            for file in sorted(local.iterdir()):
                fs.put_file(str(file), f"{path}/{file.name}")

    def _requested(self) -> int:
        """How many steps a file asks for, which is then gone; 0 where there is none."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return 0
        self._looked = time.monotonic()
        fs, path = filesystem(f"{self.uri}/{REQUEST}")
        try:
            if not fs.exists(path):
                return 0
            text = fs.cat_file(path).decode().strip()
            fs.rm_file(path)
        except OSError as error:
            log.warning("%s/%s: %s", self.uri, REQUEST, error)
            return 0
        return int(text) if text.isdecimal() else STEPS
