"""Lines of metrics: first to `metrics.jsonl`, then from rank 0 to the driver, over an actor that may die unnoticed.

The record is the file, which travels with the checkpoints; the rest is only the way to a screen and a tracker.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from components.artifacts.context import StepContext

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
    """The lines so far, as text; each new one goes to `live`, a file that begins with them, and to `send`.

    `last` holds the newest value of each metric since. Neither `live` nor `send` stops the training when it fails.
    """

    def __init__(
        self, text: str = "", send: Callable[[dict[str, Any]], None] | None = None, live: Path | None = None
    ) -> None:
        self.text = text
        self.last: dict[str, Any] = {}
        self._send, self._live = send, live
        self._keep(text, "w")

    def append(self, step: int, metrics: Mapping[str, float], text: str | None = None) -> None:
        """Add a line: the step, the time in ms since 1970, the metrics to six digits, and what is to be said in words."""
        values = {name: float(f"{value:.6g}") for name, value in metrics.items()}
        line = {"step": step, "time": int(time.time() * 1000), **values, **({"text": text} if text else {})}
        written = json.dumps(line) + "\n"
        self.text += written
        self.last |= line
        self._keep(written, "a")
        if self._send is not None:
            try:
                self._send(line)
            except Exception as error:  # whatever Ray raises: the file has the line
                log.warning("live metrics end here: %s", error)
                self._send = None

    def _keep(self, text: str, mode: str) -> None:
        if self._live is None:
            return
        try:
            self._live.parent.mkdir(parents=True, exist_ok=True)
            with open(self._live, mode, encoding="utf-8") as file:
                file.write(text)
        except OSError as error:  # the checkpoints have the lines too
            log.warning("%s ends here: %s", self._live, error)
            self._live = None


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

    actor: Any = ray.remote(num_cpus=0, max_restarts=3)(MetricsBoard).options(name=board).remote()
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
    """Pass one line to the tracker; the same line twice counts once. A note is for the screen only."""
    if "note" in line:
        return
    metrics = {name: value for name, value in line.items() if name not in ("step", "time", "text")}
    context.tracker.log_metrics(metrics, step=line["step"], at=line.get("time"))


def describe(line: Mapping[str, Any], steps: int) -> str:
    """`step 120/700  loss 0.53  lr 1.0e-03  4.2k tok/s  eta 1:10`, or `step 120/700  val loss 0.61`; or a note as it is."""
    if "note" in line:
        note: str = line["note"]
        return note
    if "text" in line:
        return f"step {line['step']}/{steps}  {line['text']}"
    if "train/loss" not in line:
        return f"step {line['step']}/{steps}  val loss {line['val/loss']:.3f}"
    speed = line["train/tokens_per_s"]
    tokens = f"{speed / 1000:.1f}k" if speed >= 1000 else f"{speed:.0f}"
    minutes, seconds = divmod(round(line["train/eta_s"]), 60)
    hours, minutes = divmod(minutes, 60)
    eta = f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
    loss, rate = line["train/loss"], line["train/lr"]
    return f"step {line['step']}/{steps}  loss {loss:.3f}  lr {rate:.1e}  {tokens} tok/s  eta {eta}"
