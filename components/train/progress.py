"""Live metrics from rank 0 to the driver, over an actor that may die without anyone stopping for it.

The record is the file of metrics that travels with the checkpoints; this is only the way to a screen and a tracker.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from components.context import StepContext

POLL_SECONDS = 0.5
log = logging.getLogger(__name__)


class MetricsBoard:
    """Holds lines of metrics until the driver takes them. Runs as a Ray actor without a CPU of its own."""

    def __init__(self) -> None:
        self._lines: list[dict[str, Any]] = []

    def post(self, line: dict[str, Any]) -> None:
        self._lines.append(line)

    def take(self) -> list[dict[str, Any]]:
        lines, self._lines = self._lines, []
        return lines


class MetricsLog:
    """The lines so far, as text, the last of them, and where each new one goes. `send` may fail without harm."""

    def __init__(self, text: str = "", send: Callable[[dict[str, Any]], None] | None = None) -> None:
        self.text = text
        self.last: dict[str, Any] = json.loads(text.splitlines()[-1]) if text else {}
        self._send = send

    def append(self, step: int, metrics: Mapping[str, float]) -> None:
        line = {"step": step, **{name: float(f"{value:.6g}") for name, value in metrics.items()}}
        self.text += json.dumps(line) + "\n"
        self.last = line
        if self._send is not None:
            try:
                self._send(line)
            except Exception as error:  # whatever Ray raises: the file has the line
                log.warning("live metrics end here: %s", error)
                self._send = None


def sender(board: str) -> Callable[[dict[str, Any]], None] | None:
    """How a worker posts to the board of that name, without waiting; None when it cannot be found."""
    import ray

    try:
        actor = ray.get_actor(board)
    except Exception as error:  # ValueError, or a lost connection: training goes on without
        log.warning("no live metrics: %s", error)
        return None
    return lambda line: actor.post.remote(line)


@contextlib.contextmanager
def forwarding(board: str, steps: int, context: StepContext) -> Iterator[None]:
    """Start a board; while the block runs, and once at its end, pass what is posted to the tracker and the screen."""
    import ray

    actor = ray.remote(num_cpus=0, max_restarts=3)(MetricsBoard).options(name=board).remote()
    ended = threading.Event()

    def forward() -> None:
        while True:
            last = ended.wait(POLL_SECONDS)
            with contextlib.suppress(Exception):  # a board that is starting, restarting or gone
                for line in ray.get(actor.take.remote(), timeout=10):
                    record(line, context)
                    context.progress(describe(line, steps))
            if last:
                return

    thread = threading.Thread(target=forward, name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=15)
        with contextlib.suppress(Exception):
            ray.kill(actor)


def record(line: Mapping[str, Any], context: StepContext) -> None:
    """Pass one line to the tracker."""
    context.tracker.log_metrics({name: value for name, value in line.items() if name != "step"}, step=line["step"])


def describe(line: Mapping[str, Any], steps: int) -> str:
    """`step 120/700  loss 0.53  lr 1.0e-03  4.2k tok/s  eta 1:10`."""
    speed = line["train/tokens_per_s"]
    tokens = f"{speed / 1000:.1f}k" if speed >= 1000 else f"{speed:.0f}"
    minutes, seconds = divmod(round(line["train/eta_s"]), 60)
    hours, minutes = divmod(minutes, 60)
    eta = f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
    loss, rate = line["train/loss"], line["train/lr"]
    return f"step {line['step']}/{steps}  loss {loss:.3f}  lr {rate:.1e}  {tokens} tok/s  eta {eta}"
