"""Process environment for the tools underneath: telemetry off, stores below the state folder, servers on loopback."""

from __future__ import annotations

import os

from components.pipeline.config import PipelineConfig
from components.tracking.runs import state_dir

# Each tool reads its own variable; MLflow accepts only the word `true` for DO_NOT_TRACK.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # the summary names the run once
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # errors are one line of ours; Prefect's page has the traceback
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "180",
    "RAY_raylet_start_wait_time_s": "180",
    "GIT_PYTHON_REFRESH": "quiet",
    "TOKENIZERS_PARALLELISM": "false",
}

# Ray's own servers listen on every interface unless the node's address is loopback, which is what this makes of it, on Linux
# too. Not where this process belongs to a cluster.
RAY_ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


LOOPBACK = ("127.0.0.1", "localhost", "::1")
PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def quieten() -> None:
    """Telemetry off and retries short, in a process whose stores are another's choice; what the user has set stays."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    reach_loopback_directly()


def reach_loopback_directly() -> None:
    """Where a proxy is set, say that servers of this machine are not behind it; gRPC, requests and httpx all read this."""
    if not any(os.environ.get(name) or os.environ.get(name.upper()) for name in PROXIES):
        return
    named = ",".join(os.environ.get(name, "") for name in ("no_proxy", "NO_PROXY"))
    hosts = dict.fromkeys([*(host.strip() for host in named.split(",") if host.strip()), *LOOPBACK])
    os.environ.update(dict.fromkeys(("no_proxy", "NO_PROXY"), ",".join(hosts)))


def prepare_environment(config: PipelineConfig) -> None:
    """Make the state folder, and set what the tools read at import, without overriding what the user has set."""
    set_environment(config)
    state_dir(config.tracking).mkdir(parents=True, exist_ok=True)


def set_environment(config: PipelineConfig) -> None:
    """The same, but nothing is written."""
    quieten()
    folder = state_dir(config.tracking)
    own_ray = config.ray.address is None and "RAY_ADDRESS" not in os.environ
    local = {
        **(RAY_ON_LOOPBACK if own_ray else {}),
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{folder / 'prefect.db'}",
    }
    for name, value in local.items():
        os.environ.setdefault(name, value)
