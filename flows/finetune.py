"""finetune-flow: raw data in, a benchmarked and registered model out; every line is one tracked step."""

from __future__ import annotations

from typing import Any

from prefect import flow

from components.config import PipelineConfig
from components.failures import boundary
from components.steps import STEPS, known_steps
from components.tracking import state_dir
from flows.environment import prepare_environment
from flows.hooks import release_flow_run
from flows.pipeline import PipelineRun, pipeline_run
from flows.progress import Progress
from flows.recovery import close_dead_runs, lease
from flows.starting import check_start
from flows.summary import conclude
from flows.tasks import current_flow_links


@flow(
    name="finetune-flow",
    flow_run_name="finetune-{config.name}",
    on_cancellation=[release_flow_run],
    on_crashed=[release_flow_run],
)
def finetune_flow(config: PipelineConfig = PipelineConfig(), refresh: list[str] | None = None) -> dict[str, Any]:  # noqa: B008
    """Turn a source of images into a model that is measured against its base and registered.

    Args:
        config: The whole pipeline; `extends` names a YAML file that the other values are laid over.
        refresh: Steps to run again although nothing that they depend on changed.
    """
    again = known_steps(refresh or ())
    with boundary(state_dir(config)):
        prepare_environment(config)
        links = current_flow_links()
        if links.deployment:  # else `plm finetune` did, before the servers started
            check_start(config, STEPS, again, lambda text: Progress().say("note", text))
        close_dead_runs(config, flow_run=links.flow_run_id)
        with lease(config) as held, pipeline_run(config, links, held, again) as run:
            finetune(run)
            return conclude(run)


def finetune(run: PipelineRun) -> None:
    """The chain itself."""
    raw = run.step("ingest")
    dataset = run.step("convert", raw=raw)
    base = run.step("initialize")
    shards = run.step("preprocess", dataset=dataset, model=base)
    before = run.step("evaluate_base", model=base, dataset=dataset)
    checkpoint = run.step("train", shards=shards, base=base)
    model = run.step("consolidate", checkpoint=checkpoint, base=base)
    after = run.step("evaluate", model=model, dataset=dataset)
    comparison = run.step("compare", before=before, after=after, dataset=dataset, checkpoint=checkpoint)
    run.step("register", model=model, comparison=comparison)
