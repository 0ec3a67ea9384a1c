"""finetune-flow: raw data in, a benchmarked and registered model out; every line is one tracked step."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from prefect import flow

from components.pipeline.config_overrides import ConfigPath, Overrides, as_texts, config_of
from components.pipeline.failures import boundary
from components.pipeline.steps import STEPS, known_steps
from components.reach import reach_of_parameters
from components.tracking.runs import state_dir
from flows.run.foresight import foreseen
from flows.run.hooks import note_what_to_release, release_flow_run
from flows.run.pipeline import PipelineRun, pipeline_run
from flows.run.progress import Progress
from flows.run.recovery import close_dead_runs, lease
from flows.run.starting import check_start
from flows.run.summary import Results, conclude
from flows.run.tasks import current_flow_links
from flows.servers.environment import prepare_environment


def name_of_flow_run() -> str:
    """What the flow run is called: the config's file and the first keys that differ from it."""
    from prefect.runtime import flow_run

    given = flow_run.parameters
    changed = as_texts(given.get("overrides") or {})
    return " ".join([f"finetune-{PurePath(str(given.get('config'))).stem}", *changed])[:100]


@flow(
    name="finetune-flow",
    flow_run_name=name_of_flow_run,
    on_cancellation=[release_flow_run],
    on_crashed=[release_flow_run],
)
def finetune_flow(
    config: ConfigPath,
    overrides: Overrides | list[str] = {},  # type: ignore[assignment]  # noqa: B006 - never changed; a form starts from it
    refresh: list[str] | None = None,
) -> dict[str, Any]:
    """Turn a source of images into a model that is measured against its base and registered.

    Args:
        config: Path of a YAML file, such as configs/demo.yaml.
        overrides: What is different from the file: keys of it, or a list of texts such as train.steps=200.
        refresh: Steps to run again although nothing that they depend on changed.
    """
    from prefect.runtime import deployment

    resolved = config_of(config, overrides, reach_of_parameters() if deployment.id else None)
    again = known_steps(refresh or ())
    with boundary(state_dir(resolved.tracking)):
        prepare_environment(resolved)
        links = current_flow_links()
        note_what_to_release(resolved, links.flow_run_id)
        if links.deployment:  # else `plm finetune` did, before the servers started
            check_start(resolved, STEPS, again, lambda text: Progress().say("note", text))
        close_dead_runs(resolved, flow_run=links.flow_run_id)
        with lease(resolved) as held, pipeline_run(resolved, links, held, again) as run:
            return conclude(run, finetune(run))


def finetune(run: PipelineRun) -> Results:
    """The chain itself."""
    raw = run.step("ingest")
    dataset = run.step("convert", raw=raw)
    for found in foreseen(run.config, run.store, dataset):
        run.progress.say("gate", found.text)
    base = run.step("base")
    shards = run.step("preprocess", dataset=dataset, model=base)
    before = run.step("evaluate_base", model=base, dataset=dataset)
    checkpoint = run.step("train", shards=shards, base=base)
    model = run.step("consolidate", checkpoint=checkpoint, base=base)
    after = run.step("evaluate", model=model, dataset=dataset)
    champion = run.step("champion", model=model)
    present = run.step("evaluate_champion", model=champion, dataset=dataset)
    comparison = run.step(
        "compare", before=before, after=after, champion=present, dataset=dataset, checkpoint=checkpoint
    )
    registration = run.step("register", model=model, comparison=comparison)
    return Results(checkpoint, model, comparison, registration)
