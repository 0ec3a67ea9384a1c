"""Where a flow run is seen in Prefect."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FlowLinks:
    """A flow run's id and page, and the deployment that it came from."""

    flow_run_id: str
    flow_run_url: str
    deployment: str = ""
