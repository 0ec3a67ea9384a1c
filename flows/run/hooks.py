"""What must happen when a flow run was cancelled or crashed and its own process can no longer do it."""

from __future__ import annotations

import contextlib
from typing import Any
from uuid import UUID

from components.errors import UserError
from components.pipeline.config import PipelineConfig
from components.tracking.runs import state_dir, tracking_uri
from flows.servers.environment import quieten

# Labels of a flow run. The hook runs in the worker's process, elsewhere than the flow: it reads no config file.
STATE_DIR, TRACKING, RAY = "plm.state_dir", "plm.tracking_uri", "plm.ray_address"


def note_what_to_release(config: PipelineConfig, flow_run_id: str) -> None:
    """Keep with the flow run where its stores and its cluster are, for the hook."""
    from prefect.client.orchestration import get_client

    labels: dict[str, bool | int | float | str] = {
        STATE_DIR: str(state_dir(config.tracking)),
        TRACKING: tracking_uri(config.tracking),
        RAY: config.ray.address or "",
    }
    with get_client(sync_client=True) as client:
        client.update_flow_run_labels(UUID(flow_run_id), labels)


def release_flow_run(flow: Any, flow_run: Any, state: Any) -> None:
    """Stop the Ray jobs of a flow run and close its MLflow runs. Idempotent; runs in another process than the flow."""
    quieten()  # the worker's process, which no command of ours prepared
    if config := _noted(str(flow_run.id)):
        _release(config, str(flow_run.id))


def _noted(flow_run_id: str) -> PipelineConfig | None:
    """The stores and the cluster that the flow noted; None where it was stopped before it opened anything."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:  # the worker's own copy of the run is older than the note
        labels = client.read_flow_run(UUID(flow_run_id)).labels
    if STATE_DIR not in labels:
        return None
    tracking = {"state_dir": labels[STATE_DIR], "uri": labels[TRACKING]}
    return PipelineConfig.model_validate({"tracking": tracking, "ray": {"address": labels[RAY] or None}})


def _release(config: PipelineConfig, flow_run_id: str) -> None:
    if config.ray.address:
        from components.pipeline.ray_jobs import job_client, stop_jobs_of_flow_run

        with contextlib.suppress(UserError):
            stop_jobs_of_flow_run(job_client(config.ray.address), flow_run_id)
    from flows.run.recovery import close_dead_runs

    close_dead_runs(config, in_prefect=False)  # Prefect itself is about to write the final state
