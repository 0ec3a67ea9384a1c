"""Steps as Prefect tasks: cached under the artifact's key, with links to artifact, MLflow run and Ray job."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from uuid import UUID

from prefect import get_client, get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import CacheKeyFnPolicy
from prefect.settings import PREFECT_LOCAL_STORAGE_PATH

from components.errors import UserError
from flows.run.links import FlowLinks

# URI and digest. Not a dict: Prefect knows a result by the identity of its parts, and all dicts would share their keys.
Result = list[str]


def step_task(name: str, key: str, reuse: bool) -> Callable[[Callable[[], Result], dict[str, Result]], Result]:
    """A task run named after the step, cached under the artifact's key; the results that it is given are edges to theirs.

    The manifest decides: where it is whole the work returns at once, where it is not Prefect's own cache is refreshed.
    UserError where Prefect cannot keep the result: it would show the task as rolled back, and the flow as completed.
    """

    @task(
        name=name,
        task_run_name=name,
        cache_policy=CacheKeyFnPolicy(cache_key_fn=lambda context, parameters: key),
        refresh_cache=not reuse,
        persist_result=True,
        result_serializer="json",
    )
    def run_step(work: Callable[[], Result], inputs: dict[str, Result]) -> Result:
        return work()

    lost: list[str] = []
    run_step.on_rollback(lambda transaction: lost.append(name))

    def call(work: Callable[[], Result], inputs: dict[str, Result]) -> Result:
        result = run_step(work, inputs)
        if lost:
            place = PREFECT_LOCAL_STORAGE_PATH.value()
            raise UserError(
                f"{name}: done, but Prefect cannot keep its result in {place}; make that writable and run again"
            )
        return result

    return call


def link(key: str, url: str, description: str) -> None:
    """A link artifact on the current task or flow run."""
    create_link_artifact(link=url, key=key, description=description)


def show_place(key: str, uri: str, description: str) -> None:
    """Where files lie: a link where a browser may open it, else the path, since a page of a server may not open files."""
    if uri.startswith(("http://", "https://")):
        link(key, uri, description)
    else:
        create_markdown_artifact(markdown=f"`{uri}`\n\n{description}", key=key, description=description)


def run_log() -> Callable[[str], None]:
    """What writes a line to the log of the current task run, outside of one to the flow run's; from any thread."""
    return get_run_logger().info


def name_flow_run(links: FlowLinks, name: str) -> None:
    """Call the flow run so; a server that does not take it keeps the old name."""
    with contextlib.suppress(Exception), get_client(sync_client=True) as client:  # httpx and Prefect families
        client.update_flow_run(UUID(links.flow_run_id), name=name)


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
