"""`plm finetune`: finetune-flow in this process, on the local stores, with nothing left behind."""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from typing import Any

from components.errors import UserError
from components.pipeline.config import PipelineConfig
from components.pipeline.steps import STEPS, known_steps
from components.pipeline.storage import store_of
from components.terminal_text import one_line
from components.tracking.runs import state_dir
from flows.run.explain import StepDecision, explain
from flows.run.progress import Progress
from flows.run.starting import check_start, findings_for
from flows.servers.environment import prepare_environment, set_environment
from flows.servers.prefect_server import PrefectServer


def run_finetune(config: PipelineConfig, refresh: Sequence[str], path: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Run the chain and print the numbers; returns the summary.

    `path` and `overrides` are what `config` came from: Prefect's page shows them as the flow run's parameters.
    """
    steps = known_steps(refresh)
    progress = Progress()
    check_start(config, STEPS, steps, lambda text: progress.say("note", text))
    prepare_environment(config)
    server = PrefectServer(state_dir(config.tracking))
    # Registered before Prefect is imported, so that it runs after Prefect has sent its last logs on its own way out.
    atexit.register(server.close)
    server.start()
    if server.ours:  # it ends with this process; links lead to where `plm ui` shows the same runs
        os.environ.setdefault("PREFECT_UI_URL", f"http://127.0.0.1:{config.tracking.prefect_port}")
    _check_tracking(config)
    from flows.finetune import finetune_flow

    server.wait()
    summary = finetune_flow(path, list(overrides), sorted(steps))
    from flows.run.summary import last_lines

    print("\n".join(last_lines(summary)))
    return summary


def explain_plan(config: PipelineConfig, refresh: Sequence[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Print for each step whether it would be reused and, if not, what changed, and what is unusual. Writes nothing.

    Returns the decisions, and what a start would be refused for.
    """
    again = known_steps(refresh)
    set_environment(config)
    refused: list[str] = []
    decisions: list[StepDecision] = []
    try:
        decisions = explain(config, store_of(config), again)
    except UserError as error:  # of the source, mostly, which the findings name, too
        refused = str(error).splitlines()
    for decision in decisions:
        print(f"{decision.step:<18} {'reused' if decision.reused else 'runs':<7} {one_line(decision.reason)}")
        for note in decision.notes:
            print(f"{'':<22} {one_line(note)}")
    reused = {decision.step for decision in decisions if decision.reused}
    findings = findings_for(config, STEPS.keys() - reused)
    for finding in findings:
        if not finding.refuses:
            print(f"{'note':<18} {one_line(finding.text)}")
    lines = [finding.text for finding in findings if finding.refuses]
    return [vars(decision) for decision in decisions], list(dict.fromkeys([*lines, *refused]))


def _check_tracking(config: PipelineConfig) -> None:
    if not config.tracking.required:
        return
    from components.tracking.runs import open_tracking

    open_tracking(config.tracking)
