"""Compare the candidate with the base model and the champion: figures with their uncertainty, a report, the loss curve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from components.artifacts.artifact import Artifact, ArtifactWriter
from components.artifacts.context import StepContext, keep_files
from components.compare.chart import draw_loss, read_loss_curve
from components.compare.intervals import gain_interval, over, score_interval, tally
from components.compare.report import choose_examples, render
from components.compare.samples import Compared, read_compared, with_champion
from components.compare.settings import CompareSettings
from components.compare.task import Comparison, summary
from components.errors import UserError
from components.media_files.root import MediaRoot

SCHEMA = "comparison-2"


def run(given: CompareSettings, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StepContext) -> None:
    """Inputs: before, after, champion (evaluations), dataset, checkpoint.

    Writes comparison.json, which the gate reads, report.html and loss.png.
    """
    earlier, later = (inputs[name].read_json("results.json") for name in ("before", "after"))
    rival = inputs["champion"].read_json("results.json")["model"]
    tasks: dict[str, Any] = {}
    main: tuple[Comparison, list[Compared]] | None = None
    for name, result in sorted(later["tasks"].items(), key=lambda item: not item[1]["held_out"]):
        label = given.task if result["held_out"] else name
        if (reason := unpaired(earlier["tasks"].get(name), result)) is not None:
            tasks[label] = {**figures(earlier["tasks"].get(name), result), "not_measured": reason}
            continue
        rows = read_compared(inputs["before"], inputs["after"], result["samples"], result["best"])
        if rival["version"] is not None and rival["problem"] is None:
            try:
                rows = with_champion(rows, inputs["champion"], result["samples"])
            except UserError as error:  # other rows were set aside for it: the gate tells of it
                rival = {**rival, "problem": str(error)}
        comparison = compared(given, label, result, later, rows)
        tasks[label] = {**summary(comparison), **figures(earlier["tasks"][name], result)}
        main = main or (comparison, rows)
    out.schema = SCHEMA
    out.write_json("comparison.json", {"main": next(iter(tasks)), "rival": rival, "tasks": tasks})
    out.counts["seconds_per_answer"] = inputs["after"].counts.get("seconds_per_answer")
    if main is not None:
        show(given, *main, tasks, inputs, out, context)


def unpaired(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> str | None:
    """Why the two models cannot be paired over a task's questions, or None."""
    if after["not_measured"] is not None:
        reason: str = after["not_measured"]
        return reason
    if before is None:
        return "the base model was not asked"
    if before["not_measured"] is not None:
        return f"of the base model: {before['not_measured']}"
    if after["samples"] is None or before["samples"] is None:
        return "it has no score for each question, so that models cannot be paired over them"
    return None


def figures(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> dict[str, Any]:
    """The figures that a benchmark is known by, which need not be the mean of its questions' scores, and those published."""
    return {
        "metric": after["metric"],
        "unit": after["unit"],
        "figure_before": None if before is None else before["value"],
        "figure_after": after["value"],
        "also_before": {} if before is None else before.get("also", {}),
        "also_after": after.get("also", {}),
        "published": after.get("published"),
        "comparable": after.get("comparable", False),
    }


def compared(
    given: CompareSettings,
    label: str,
    result: Mapping[str, Any],
    results: Mapping[str, Any],
    rows: list[Compared],
) -> Comparison:
    """The figures of one task."""
    confidence, best = given.compare.confidence, result["best"]
    against = {who: over(rows, who) for who in ("before", "champion") if getattr(rows[0], who) is not None}
    return Comparison(
        pipeline=given.pipeline,
        task=label,
        metric=result["metric"],
        best=best,
        confidence=confidence,
        before=score_interval([row.before.score for row in rows], confidence, best),
        after=score_interval([row.after.score for row in rows], confidence, best),
        champion=score_interval([row.champion.score for row in rows if row.champion], confidence, best)
        if "champion" in against
        else None,
        gain=gain_interval(against["before"], confidence),
        against=against,
        counts=tally(rows),
        limit=results["limit"],
        rejected=results["rejected"],
        rejected_first=results["rejected_first"],
    )


def show(
    given: CompareSettings,
    comparison: Comparison,
    rows: list[Compared],
    tasks: Mapping[str, Mapping[str, Any]],
    inputs: Mapping[str, Artifact],
    out: ArtifactWriter,
    context: StepContext,
) -> None:
    """Draw the report of the main task, count, and say it in a line."""
    context.progress("drawing the report")
    loss_png = draw_loss(read_loss_curve(inputs["checkpoint"]))
    examples = choose_examples(rows, given.compare.examples)
    html = render(comparison, tasks, examples, MediaRoot.of(inputs["dataset"]), loss_png)
    keep_files(out, context, {"report.html": html.encode(), "loss.png": loss_png})
    out.counts |= {"examples": len(examples), "rejected": comparison.rejected, **asdict(comparison.counts)}
    note = f", {comparison.rejected} held-out rows not asked" if comparison.rejected else ""
    context.progress(f"{comparison.metric} {comparison.before.value:.3f} -> {comparison.after.value:.3f}{note}")
