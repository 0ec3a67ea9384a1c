"""Steps as Prefect tasks: cached under the artifact's key, with links to artifact, MLflow run and Ray job."""

from __future__ import annotations

from collections.abc import Callable

from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import CacheKeyFnPolicy

from flows.links import FlowLinks


def step_task(name: str, key: str, reuse: bool) -> Callable[[Callable[[], dict[str, str]]], dict[str, str]]:
    """A task run named after the step, cached under the artifact's key.

    The manifest decides: where it is whole the work returns at once, where it is not Prefect's own cache is refreshed.
    """

    @task(
        name=name,
        task_run_name=name,
        cache_policy=CacheKeyFnPolicy(cache_key_fn=lambda context, parameters: key),
        refresh_cache=not reuse,
        persist_result=True,
        result_serializer="json",
    )
    def run_step(work: Callable[[], dict[str, str]]) -> dict[str, str]:
        return work()

    return run_step


def link(key: str, url: str, description: str) -> None:
    """A link artifact on the current task or flow run."""
    create_link_artifact(link=url, key=key, description=description)


def link_ray_job(step: str, url: str) -> None:
    """A link to the Ray job that does a step."""
    link(f"ray-job-{step.replace('_', '-')}", url, f"Ray job of {step}")


def show_report(markdown: str) -> None:
    """The comparison as a page of its own."""
    create_markdown_artifact(markdown=markdown, key="comparison", description="Before and after")


def current_flow_links() -> FlowLinks:
    """The flow run that this code belongs to, and where it is seen."""
    from prefect.context import FlowRunContext
    from prefect.runtime import deployment
    from prefect.settings import PREFECT_UI_URL

    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        raise RuntimeError("finetune-flow must be called as a Prefect flow")
    api_url = str(context.client.api_url).rstrip("/")
    base = PREFECT_UI_URL.value() or api_url.removesuffix("/api")
    run_id = str(context.flow_run.id)
    return FlowLinks(run_id, f"{base}/runs/flow-run/{run_id}", str(deployment.name or ""))
