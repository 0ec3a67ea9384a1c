"""The loss curve of a training run as a PNG."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass

from components.artifacts.artifact import Artifact
from components.errors import UserError

SMOOTHING = 0.03  # of the curve's length, on each side
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


def smoothed(values: tuple[float, ...], window: int) -> list[float]:
    """Mean over `window` neighbours on each side, fewer at the ends and as many on both sides, so that it never lags.

    Worked example: 8, 4, 3, 1 with window 1 gives 8, 5, 8/3, 1.
    """
    result = []
    for i in range(len(values)):
        reach = min(window, i, len(values) - 1 - i)
        result.append(sum(values[i - reach : i + reach + 1]) / (2 * reach + 1))
    return result


def draw_loss(curve: LossCurve) -> bytes:
    """PNG of the loss over optimizer steps (logarithmic when it spans a decade), the learning rate in a strip below."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    figure = Figure(figsize=(8, 4.2), dpi=160, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    above.plot(curve.steps, curve.losses, color=BLUE, alpha=0.3, linewidth=1.2, label="each logged step")
    window = max(1, round(SMOOTHING * len(curve.steps)))
    above.plot(curve.steps, smoothed(curve.losses, window), color=BLUE, linewidth=2, label="smoothed")
    if min(curve.losses) > 0 and max(curve.losses) / min(curve.losses) > 10:
        above.set_yscale("log")
        above.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        above.yaxis.set_major_formatter("{x:g}")
        above.yaxis.set_minor_locator(NullLocator())
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
