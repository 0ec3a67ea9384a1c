"""What a run ends with: `summary.json` at the storage root, the numbers on the parent run, a page in Prefect."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psutil

from components.artifacts.artifact import Artifact
from components.artifacts.files import write_json
from components.register.registry import is_champion
from flows.run.parent_run import mlflow_run_url
from flows.run.pipeline import PipelineRun
from flows.run.tasks import link, show_place, show_report


@dataclass(frozen=True)
class Results:
    """What a chain has made that its summary tells of."""

    checkpoint: Artifact
    model: Artifact
    comparison: Artifact
    registration: Artifact


def conclude(run: PipelineRun, results: Results) -> dict[str, Any]:
    """Write the summary, put the numbers on the MLflow parent run and the report into Prefect; returns the summary."""
    comparison = results.comparison
    compared = comparison.read_json("comparison.json")
    main = compared["main"]
    result = compared["tasks"][main]
    registration = results.registration.read_json("registration.json")
    summary = {
        "pipeline": run.config.name,
        "task": main,
        "metric": result["metric"],
        "score_before": result["before"],
        "score_after": result["after"],
        "score_before_interval": result["before_ci"],
        "score_after_interval": result["after_ci"],
        "gain": {name: result[name] for name in ("gain", "ci_low", "ci_high", "confidence")},
        "heldout": result["n"],
        **_times(run),
        "mlflow_run_id": run.tracker.run_id,
        "prefect_flow_run_id": run.links.flow_run_id,
        "registered_model": registration.get("name"),
        "registered_model_version": registration.get("version"),
        "champion": is_champion(run.config.tracking, registration),
        "verdict": registration.get("verdict"),
        "gate": registration.get("reason"),
        "rules": registration.get("rules", []),
        "report": f"{comparison.uri}/report.html",
        "model": results.model.uri,
        "failed_checkpoints": results.checkpoint.counts.get("failed_checkpoints", 0),
    }
    name = f"eval/{main}/{result['metric']}"
    run.tracker.log_metrics({name: result["after"], f"{name}/base": result["before"], f"{name}/gain": result["gain"]})
    run.tracker.log_metrics(_last_losses(results.checkpoint))
    for file in ("report.html", "loss.png"):
        run.tracker.log_file(comparison.local(file))
    page = markdown(summary)
    show_report(page)
    run.tracker.tag("mlflow.note.content", page)
    if summary["registered_model_version"] is not None:
        name_of_version = f"{summary['registered_model']}/{summary['registered_model_version']}"
        run.tracker.tag("plm.registered_model_version", name_of_version)
    run.progress.say("gate", str(summary["gate"]))
    _show_report_file(run, summary["report"])
    write_json(run.store.uri(run.config.name, "summary.json"), summary, indent=1)
    return summary


def _show_report_file(run: PipelineRun, uri: str) -> None:
    """A link to the report as MLflow's page shows it; where the run is not recorded, the file's place."""
    what = "Before and after, with images and answers"
    if run.tracker.run_id and run.experiment:
        link("report", f"{mlflow_run_url(run.config, run.experiment, run.tracker.run_id)}/artifacts/report.html", what)
    else:
        show_place("report", uri, what)


def _last_losses(checkpoint: Artifact) -> dict[str, float]:
    """`train/loss`, and `val/loss` where it was measured, as the training ended; the curves are on its own run."""
    with checkpoint.open("metrics.jsonl", "r") as file:
        lines = [json.loads(line) for line in file]
    last = {name: value for line in lines for name, value in line.items()}
    return {name: last[name] for name in ("train/loss", "val/loss") if name in last}


def _times(run: PipelineRun) -> dict[str, Any]:
    startup_in_steps = run.steps.pop("_startup", {"seconds": 0.0})["seconds"]
    wall = time.time() - psutil.Process(os.getpid()).create_time()
    work = sum(step["seconds"] for step in run.steps.values()) - startup_in_steps
    ran = [artifact for name, artifact in run.artifacts.items() if not run.steps[name]["cached"]]
    around_loops = sum(artifact.counts.get("seconds_around_loop", 0.0) for artifact in ran)
    return {
        "steps": run.steps,
        "wall_seconds": round(wall, 1),
        "work_seconds": round(work - around_loops, 1),
        "startup_seconds": round(wall - work + around_loops, 1),
    }


def markdown(summary: Mapping[str, Any]) -> str:
    """The page of a run in Prefect, and its note in MLflow."""
    gain = summary["gain"]
    rows = "\n".join(
        f"| {name} | {step['seconds']:.1f} s | {'reused' if step['cached'] else 'ran'} |"
        for name, step in summary["steps"].items()
    )
    rules = "\n".join(f"- {rule}" for rule in summary["rules"])
    return (
        f"## {summary['task']}: {summary['metric']}\n\n| before | after | gain | n |\n|---|---|---|---|\n"
        f"| {_value(summary, 'before')} | {_value(summary, 'after')} | {gain['gain']:+.3f} "
        f"[{gain['ci_low']:+.3f}, {gain['ci_high']:+.3f}] | {summary['heldout']} |\n\n"
        f"In brackets: intervals of {gain['confidence']:.0%}.\n\n{registered(summary)}\n\n"
        f"The gate: {summary['gate']}.\n\n{rules}\n\n"
        f"| step | time | |\n|---|---|---|\n{rows}\n"
    )


def _value(summary: Mapping[str, Any], when: str) -> str:
    low, high = summary[f"score_{when}_interval"]
    return f"{summary[f'score_{when}']:.3f} [{low:.3f}, {high:.3f}]"


def registered(summary: Mapping[str, Any]) -> str:
    """One sentence on what the registry holds of this run."""
    if summary["registered_model_version"] is None:
        return "Not registered: the registry was away; the same run again registers it."
    alias = "champion" if summary["champion"] else "challenger"
    return f"Registered as {summary['registered_model']} version {summary['registered_model_version']}, {alias}."


def last_lines(summary: Mapping[str, Any]) -> list[str]:
    """What the terminal shows of a run that has ended: where its results are, how good they are, what the gate decided."""
    gain, (low, high) = summary["gain"], summary["score_after_interval"]
    sure = f"{gain['confidence']:.0%} interval"
    failed = summary["failed_checkpoints"]
    said = "checkpoints of the training could not be written; the last one is whole"
    return [
        *([f"warning   {failed} {said}"] if failed else []),
        f"model     {summary['model']}",
        f"report    {summary['report']}",
        f"pages     plm ui   (MLflow run {summary['mlflow_run_id']})",
        f"registry  {summary['registered_model']} version {summary['registered_model_version']}",
        f"time      {summary['wall_seconds']:.0f} s, of which start-up {summary['startup_seconds']:.0f} s",
        f"score     {summary['metric']} before {summary['score_before']:.3f}, after {summary['score_after']:.3f} "
        f"({sure} {low:.3f} to {high:.3f}) on {summary['heldout']} held-out rows",
        f"gain      {gain['gain']:+.3f} ({sure} {gain['ci_low']:+.3f} to {gain['ci_high']:+.3f})",
        *(f"rule      {rule}" for rule in summary["rules"] if len(summary["rules"]) > 1),
        f"gate      {summary['verdict']}: {summary['gate']}",
    ]
