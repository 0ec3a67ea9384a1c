"""`plm finetune`: finetune-flow in this process, on the local stores, with nothing left behind."""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from typing import Any

from components.artifact_store import ArtifactStore
from components.config import PipelineConfig
from components.steps import known_steps
from components.tracking import state_dir
from flows.environment import prepare_environment
from flows.explain import explain
from flows.prefect_server import PrefectServer


def run_finetune(config: PipelineConfig, refresh: Sequence[str]) -> dict[str, Any]:
    """Run the chain and print the numbers; returns the summary."""
    steps = known_steps(refresh)
    prepare_environment(config)
    server = PrefectServer(state_dir(config))
    # Registered before Prefect is imported, so that it runs after Prefect has sent its last logs on its own way out.
    atexit.register(server.close)
    server.start()
    _check_tracking(config)
    from flows.finetune import finetune_flow

    server.wait()
    summary = finetune_flow(config, refresh=sorted(steps))
    _print_summary(summary)
    return summary


def explain_plan(config: PipelineConfig, refresh: Sequence[str]) -> list[dict[str, Any]]:
    """Print for each step whether it would be reused and, if not, what changed."""
    prepare_environment(config)
    store = ArtifactStore(config.storage.root, config.storage.cache_dir)
    store.check()
    decisions = explain(config, store, known_steps(refresh))
    for decision in decisions:
        print(f"{decision.step:<14} {'reused' if decision.reused else 'runs':<7} {decision.reason}")
        for note in decision.notes:
            print(f"{'':<22} {note}")
    return [vars(decision) for decision in decisions]


def _check_tracking(config: PipelineConfig) -> None:
    if not config.tracking.required:
        return
    from components.tracking import open_tracking

    open_tracking(config)


def _print_summary(summary: dict[str, Any]) -> None:
    gain = summary["gain"]
    interval = f"{gain['confidence']:.0%} interval {gain['ci_low']:+.3f} to {gain['ci_high']:+.3f}"
    print(f"model     {summary['model']}")
    print(f"report    {summary['report']}")
    print(f"pages     plm ui   (MLflow run {summary['mlflow_run_id']})")
    print(f"registry  {summary['registered_model']} version {summary['registered_model_version']}")
    print(f"time      {summary['wall_seconds']:.0f} s, of which start-up {summary['startup_seconds']:.0f} s")
    print(
        f"accuracy  before {summary['accuracy_before']:.3f}, after {summary['accuracy_after']:.3f} "
        f"on {summary['heldout']} held-out images ({interval})"
    )
    if failed := summary["failed_checkpoints"]:
        print(f"warning   {failed} checkpoints of the training could not be written; the last one is whole")
