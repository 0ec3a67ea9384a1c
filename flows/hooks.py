"""What must happen when a flow run was cancelled or crashed and its own process can no longer do it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from components.config import PipelineConfig
from components.errors import UserError
from flows.environment import quieten


def release_flow_run(flow: Any, flow_run: Any, state: Any) -> None:
    """Stop the Ray jobs of a flow run and close its MLflow runs. Idempotent; runs in another process than the flow."""
    quieten()  # the worker's process, which no command of ours prepared
    with contextlib.chdir(Path(__file__).resolve().parent.parent):  # where the flow ran: paths in configs are relative
        config = PipelineConfig.model_validate(flow_run.parameters.get("config") or {})
        _release(config, str(flow_run.id))


def _release(config: PipelineConfig, flow_run_id: str) -> None:
    if config.ray.address:
        from components.ray_jobs import job_client, stop_jobs_of_flow_run

        with contextlib.suppress(UserError):
            stop_jobs_of_flow_run(job_client(config.ray.address), flow_run_id)
    from flows.recovery import close_dead_runs

    close_dead_runs(config, in_prefect=False)  # Prefect itself is about to write the final state
