"""The loss curve of a training run as a PNG."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass

from components.artifacts import Artifact
from components.errors import UserError

SMOOTHING = 0.9
BLUE, GREY = "#2563eb", "#64748b"


@dataclass(frozen=True)
class LossCurve:
    """Training loss and learning rate at the optimizer steps that were logged."""

    steps: tuple[int, ...]
    losses: tuple[float, ...]
    rates: tuple[float, ...]


def read_loss_curve(checkpoint: Artifact) -> LossCurve:
    """Read `metrics.jsonl`; of a step that was logged twice (before and after a restart) the later line counts."""
    points: dict[int, tuple[float, float]] = {}
    with checkpoint.open("metrics.jsonl", "r") as file:
        for line in file:
            row = json.loads(line)
            if "train/loss" in row:
                points[int(row["step"])] = (float(row["train/loss"]), float(row.get("train/lr", "nan")))
    if not points:
        raise UserError(f"{checkpoint.uri}/metrics.jsonl: holds no train/loss; train again")
    steps = sorted(points)
    return LossCurve(tuple(steps), tuple(points[s][0] for s in steps), tuple(points[s][1] for s in steps))


def smoothed(values: tuple[float, ...], weight: float = SMOOTHING) -> list[float]:
    """Exponential moving average without bias at the start: each value is the weighted mean of those so far."""
    result, total, norm = [], 0.0, 0.0
    for value in values:
        total, norm = weight * total + value, weight * norm + 1.0
        result.append(total / norm)
    return result


def draw_loss(curve: LossCurve) -> bytes:
    """PNG of the loss over optimizer steps (logarithmic when it spans a decade), the learning rate in a strip below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2), dpi=160, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    above.plot(curve.steps, curve.losses, color=BLUE, alpha=0.3, linewidth=1.2, label="each logged step")
    above.plot(curve.steps, smoothed(curve.losses), color=BLUE, linewidth=2, label="smoothed")
    if min(curve.losses) > 0 and max(curve.losses) / min(curve.losses) > 10:
        above.set_yscale("log")
    above.set_ylabel("training loss (nats per token)")
    above.legend(frameon=False, loc="upper right")
    below.plot(curve.steps, curve.rates, color=GREY, linewidth=1.5)
    below.set_ylabel("learning\nrate")
    below.set_xlabel("optimizer step")
    below.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    for axes in (above, below):
        axes.grid(True, color="#e2e8f0", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color("#94a3b8")
        axes.tick_params(colors="#475569")
        axes.margins(x=0.01)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
