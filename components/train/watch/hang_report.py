"""What a rank tells of itself while it trains, and what the others make of it when one of them stops moving."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.artifacts.files import write_bytes

COLLECTIVE = ("torch/distributed/", "torch/autograd/graph.py")  # where a thread waits for other ranks
OWN_THREADS = {"watchdog", "touch-files", "preemption", "checkpoint", "loader"}
STACK_CHARACTERS = 8000


@dataclass(frozen=True)
class Heartbeat:
    """What a rank tells each second. `at` is its own clock, which only has to move; `position` counts up."""

    rank: int
    position: int
    paused: bool
    waiting: bool
    at: float
    host: str
    pid: int
    started: str

    @classmethod
    def of_this_process(cls, rank: int, position: int, paused: bool) -> Heartbeat:
        pid = os.getpid()
        return cls(rank, position, paused, is_waiting(), time.time(), socket.gethostname(), pid, process_start(pid))


def is_waiting() -> bool:
    """Whether a thread that trains is inside a collective operation."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = [frame for ident, frame in sys._current_frames().items() if names.get(ident) not in OWN_THREADS]
    return any(place in frame.f_code.co_filename for frame in frames for place in COLLECTIVE)


def stacks_of_this_process() -> str:
    """The stacks of all threads, the innermost call last; the main thread first."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sorted(sys._current_frames().items(), key=lambda item: names.get(item[0]) != "MainThread")
    shown = [
        f"  thread {names.get(ident, ident)}\n" + "".join(traceback.format_stack(frame)).rstrip()
        for ident, frame in frames
        if names.get(ident) != "watchdog"
    ]
    return "\n".join(shown)[:STACK_CHARACTERS]


def behind(signs: Mapping[int, Heartbeat]) -> list[int]:
    """The ranks that the others wait for: those that counted least, and of them those outside a collective operation."""
    least = min((sign.position for sign in signs.values()), default=0)
    last = [rank for rank, sign in sorted(signs.items()) if sign.position == least]
    elsewhere = [rank for rank in last if not signs[rank].waiting]
    return elsewhere or last


def describe(
    signs: Mapping[int, Heartbeat],
    named: Sequence[int],
    silent: Sequence[int],
    still: float,
    stacks: Callable[[int], str] | None,
) -> str:
    """The report: one line that names the ranks, then their stacks, then where the others are."""
    ranks = ", ".join(str(rank) for rank in named)
    why = "do not answer" if silent else "are behind"
    lines = [f"training has not moved for {still:.0f} s: rank {ranks} {why if len(named) > 1 else singular(why)}"]
    if stacks is None:
        return lines[0]
    for rank in [*named, *(rank for rank in sorted(signs) if rank not in named)]:
        sign = signs.get(rank)
        place = f"host {sign.host}, pid {sign.pid}, position {sign.position}" if sign else "never heard of"
        lines += ["", f"rank {rank}: {place}{state(sign)}", stacks(rank)]
    return "\n".join(lines) + "\n"


def singular(why: str) -> str:
    return {"do not answer": "does not answer", "are behind": "is behind"}[why]


def state(sign: Heartbeat | None) -> str:
    """What the kernel says of a process of this machine: `, stopped`, `, gone` or nothing."""
    if sign is None or sign.host != socket.gethostname():
        return ""
    if process_start(sign.pid) != sign.started:
        return ", gone"
    fields = Path(f"/proc/{sign.pid}/stat").read_text().rpartition(")")[2].split()
    return ", stopped" if fields[0] in "Tt" else ""


def end_process(sign: Heartbeat) -> None:
    """Kill a silent process of this machine, if it is still the one that spoke: whoever starts ranks waits for its end."""
    if sign.host == socket.gethostname() and sign.pid != os.getpid() and process_start(sign.pid) == sign.started:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(sign.pid, signal.SIGKILL)


def process_start(pid: int) -> str:
    """When the kernel started a process, in its own count; empty for none. With the pid it names a process for good."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def write_report(folder: str, text: str) -> None:
    """Leave a report in a folder."""
    write_bytes(f"{folder}/{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.txt", text.encode())
