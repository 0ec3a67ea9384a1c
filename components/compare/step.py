"""Compare the model before and after training: numbers with their uncertainty, a report to look at, the loss curve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from components.artifacts.artifact import Artifact, ArtifactWriter
from components.artifacts.context import StepContext, keep_files
from components.compare.chart import draw_loss, read_loss_curve
from components.compare.intervals import accuracy_interval, gain_interval, tally
from components.compare.report import Comparison, choose_examples, render
from components.compare.samples import read_pairs
from components.compare.settings import CompareSettings
from components.media_files.root import MediaRoot

METRIC = "exact_match"


def run(given: CompareSettings, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StepContext) -> None:
    """Inputs: before, after (evaluations), dataset, checkpoint. Writes comparison.json, report.html and loss.png."""
    pairs = read_pairs(inputs["before"], inputs["after"])
    counts = tally([pair.right_before for pair in pairs], [pair.right_after for pair in pairs])
    settings = given.compare
    results = inputs["after"].read_json("results.json")
    comparison = Comparison(
        pipeline=given.pipeline,
        task=given.task,
        metric=METRIC,
        confidence=settings.confidence,
        before=accuracy_interval(counts.broken + counts.right, counts.n, settings.confidence),
        after=accuracy_interval(counts.fixed + counts.right, counts.n, settings.confidence),
        gain=gain_interval(counts, settings.confidence, settings.bootstrap_samples, settings.seed),
        counts=counts,
        limit=results["limit"],
        rejected=results["rejected"],
        rejected_first=results["rejected_first"],
    )
    context.progress("drawing the report")
    loss_png = draw_loss(read_loss_curve(inputs["checkpoint"]))
    examples = choose_examples(pairs, settings.examples)
    html = render(comparison, examples, MediaRoot.of(inputs["dataset"]), loss_png)
    keep_files(out, context, {"report.html": html.encode(), "loss.png": loss_png})
    out.write_json("comparison.json", summary(comparison))
    out.counts |= {"examples": len(examples), "rejected": comparison.rejected, **asdict(counts)}
    note = f", {comparison.rejected} held-out rows not asked" if comparison.rejected else ""
    context.progress(f"{METRIC} {comparison.before.value:.3f} -> {comparison.after.value:.3f}{note}")


def summary(comparison: Comparison) -> dict[str, Any]:
    """The flat JSON that the gate and the pipeline's summary read."""
    c = comparison
    return {
        "task": c.task,
        "metric": c.metric,
        "before": c.before.value,
        "before_ci": [c.before.low, c.before.high],
        "after": c.after.value,
        "after_ci": [c.after.low, c.after.high],
        "gain": c.gain.value,
        "ci_low": c.gain.low,
        "ci_high": c.gain.high,
        "confidence": c.confidence,
        "n": c.counts.n,
        "n_fixed": c.counts.fixed,
        "n_broken": c.counts.broken,
        "n_rejected": c.rejected,
        "limit": c.limit,
    }
