"""Checkpoints written while training goes on: the loop waits for a copy in memory at most, never for a disk.

    start()          the tensors as of this step are copied by a thread, beside the next forward and backward
    wait_copied()    before the next update, which would change them; a copy takes less than a forward
    reserve          rank 0 looks for free space and makes a folder of its own
    write, verify    every rank writes its file and reads it back
    publish, prune   rank 0 names the metadata; what need not stay goes

The thread has a process group of its own, because collectives of one group must come in the same order on all ranks. Every
phase ends with what went wrong on any rank, so that all ranks know the same. A save that failed leaves the checkpoints
before it, and the training, as they were: the next interval tries again.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint import state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.tensor import DTensor

from components.artifacts.files import filesystem
from components.train.checkpoints.checkpoint import write_notes, write_records
from components.train.checkpoints.retention import prune, remove
from components.train.checkpoints.room import BESIDE_TENSORS, free_bytes
from components.train.checkpoints.storage import FileRecords, Writer, different, publish, quiet
from components.train.model.parallel import Group

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
log = logging.getLogger(__name__)


class CheckpointFailed(RuntimeError):
    """A checkpoint could not be written; the ones before it are whole. The message says why, in one line."""


@dataclass
class Saver:
    """Writes checkpoints of `tensors()` below `uri`, one at a time. All ranks make one, and call it at the same steps."""

    uri: str
    tensors: Callable[[], Mapping[str, Tensor]]
    group: Group
    keep: int
    keep_best: bool = False
    failure: CheckpointFailed | None = None
    failed: int = 0  # checkpoints that could not be written, in all and since the last whole one
    failed_in_a_row: int = 0
    folder: str | None = None
    _pg: Any = None
    _thread: threading.Thread | None = None
    _copied: threading.Event = field(default_factory=threading.Event)
    _buffers: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.group.world > 1:
            self._pg = dist.new_group(backend="gloo")

    def start(self, state: Mapping[str, Any], metrics: str) -> None:
        """Begin a checkpoint of now. `state` (JSON, with its `step`) and `metrics` are rank 0's."""
        self.wait()
        self.failure = self.folder = None
        self._copied.clear()
        ready = torch.cuda.Event() if self.group.device.type == "cuda" else None
        if ready is not None:
            ready.record()
        work = (dict(state), metrics, dict(self.tensors()), ready)
        self._thread = threading.Thread(target=self._run, args=work, name="checkpoint", daemon=True)
        self._thread.start()

    def wait_copied(self) -> None:
        """Return when weights and optimizer may change again."""
        if self._thread is not None:
            self._copied.wait()

    def wait(self) -> CheckpointFailed | None:
        """Return when the checkpoint that was begun is whole; what kept it from becoming so, otherwise."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        return self.failure

    def _run(self, state: dict[str, Any], metrics: str, live: dict[str, Tensor], ready: Any) -> None:
        try:
            if self.group.device.type == "cuda":
                torch.cuda.set_device(self.group.device)  # a new thread is at device 0, whatever the rank's is
            lower_priority()
            self._save(state, metrics, live, ready)
            self.failed_in_a_row = 0
        except Exception as error:
            self.failure = error if isinstance(error, CheckpointFailed) else CheckpointFailed(in_one_line(error))
            self.failed_in_a_row += 1
            self.failed += 1
            log.warning("no checkpoint of step %s: %s", state["step"], self.failure)
        finally:
            self._copied.set()

    def _save(self, state: dict[str, Any], metrics: str, live: dict[str, Tensor], ready: Any) -> None:
        copies: dict[str, Tensor] = {}
        self._together(lambda: copies.update(self._copy(live, ready)))
        self._copied.set()
        folder = self._shared(f"{self.uri}/step-{state['step']:08d}-{time.time_ns() // 1_000_000}")
        self._together(lambda: reserve(folder, live, state, metrics), only_first=True)
        writer = Writer(folder)
        try:
            self._together(lambda: write(copies, writer, self._pg))
            records = self._together(lambda: verified(folder, writer.records))
            self._together(lambda: publish_whole(folder, records), only_first=True)
        except CheckpointFailed:
            if self.group.rank == 0:
                remove(folder)
            raise
        self.folder = folder
        if self.group.rank == 0:
            self._prune()

    def _prune(self) -> None:
        """A checkpoint that cannot be removed is in nobody's way: the new one is whole, on all ranks."""
        try:
            prune(self.uri, self.keep, self.keep_best)
        except Exception as error:
            log.warning("old checkpoints stay in %s: %s", self.uri, in_one_line(error))

    def _copy(self, live: Mapping[str, Tensor], ready: Any) -> dict[str, Tensor]:
        """The tensors in the memory of the CPU. The copies' room is kept for the next time."""
        if ready is None:
            return {name: self._copy_one(name, tensor) for name, tensor in live.items()}
        stream = torch.cuda.Stream(self.group.device)
        stream.wait_event(ready)
        with torch.cuda.stream(stream):
            copies = {name: self._copy_one(name, tensor) for name, tensor in live.items()}
        stream.synchronize()
        return copies

    def _copy_one(self, name: str, tensor: Tensor) -> Tensor:
        own: Any = tensor.detach()
        part: Tensor = own.to_local() if isinstance(tensor, DTensor) else own
        if name not in self._buffers:
            self._buffers[name] = torch.empty_like(part, device="cpu", pin_memory=part.device.type == "cuda")
        copy = self._buffers[name].copy_(part, non_blocking=True)
        return DTensor(copy, tensor._spec, requires_grad=False) if isinstance(tensor, DTensor) else copy

    def _shared(self, value: str) -> str:
        """Rank 0's value."""
        values = [value]
        if self._pg is not None:
            dist.broadcast_object_list(values, 0, group=self._pg)
        return values[0]

    def _together(self, phase: Callable[[], Any], only_first: bool = False) -> dict[str, Any]:
        """Do a phase on all ranks, or on rank 0; raise CheckpointFailed on all if any could not.

        Returns what the ranks gave, merged into one dict.
        """
        given: dict[str, Any] = {}
        failed: str | None = None
        try:
            if self.group.rank == 0 or not only_first:
                given = phase() or {}
        except Exception as error:
            failed = in_one_line(error)
        outcomes: list[Any] = [(failed, given)]
        if self._pg is not None:
            outcomes = [None] * self.group.world
            dist.all_gather_object(outcomes, (failed, given), group=self._pg)
        if reasons := sorted({reason for reason, _ in outcomes if reason}):
            raise CheckpointFailed("; ".join(reasons))
        return {name: value for _, part in outcomes for name, value in part.items()}


def lower_priority() -> None:
    """Let this thread have a processor only when nobody else wants it, where threads have a priority of their own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


def reserve(folder: str, live: Mapping[str, Tensor], state: Mapping[str, Any], metrics: str) -> None:
    """Make the folder of a checkpoint. CheckpointFailed where a local disk has no room for it."""
    needed = BESIDE_TENSORS + sum(tensor.numel() * tensor.element_size() for tensor in live.values())
    if "://" not in folder:
        require_room(filesystem(folder)[1], needed)
    write_notes(folder, state, metrics)


def require_room(path: str, needed: int) -> None:
    """CheckpointFailed, naming the bytes, where the disk that would hold `path` has less than `needed` left."""
    free = free_bytes(path)
    if free < needed:
        raise CheckpointFailed(
            f"{path}: a checkpoint needs {needed:,} bytes, {free:,} are free; the one before it is whole. "
            "Free some space, or lower train.keep_checkpoints"
        )


def write(copies: Mapping[str, Tensor], writer: Writer, pg: Any) -> None:
    """Every rank writes its part; rank 0 the table of them, not yet published."""
    try:
        with quiet():
            state_dict_saver.save(dict(copies), storage_writer=writer, process_group=pg, no_dist=pg is None)
    except CheckpointException as error:  # a BaseException, which would pass through every `except Exception`
        raise CheckpointFailed(in_one_line(next(iter(error.failures.values()))[0])) from error


def verified(folder: str, records: FileRecords) -> FileRecords:
    """The same records, if the files are what they say."""
    if problem := different(folder, records):
        raise CheckpointFailed(f"{folder}: {problem}")
    return records


def publish_whole(folder: str, records: FileRecords) -> None:
    """Publish a checkpoint whose files are all in place."""
    write_records(folder, records)
    publish(folder)


def in_one_line(error: BaseException) -> str:
    """An error as one line."""
    if isinstance(error, CheckpointFailed):
        return str(error)
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return (
            f"no space left while writing a checkpoint ({error.strerror}); the one before it is whole. Free some space"
        )
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
