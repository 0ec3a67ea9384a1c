"""`plm ui`: the MLflow and Prefect pages over the state folder, on loopback, until Ctrl-C."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path

from components.config import PipelineConfig
from components.errors import UserError
from components.tracking import state_dir, tracking_uri
from flows.environment import prepare_environment
from flows.prefect_door import loopback_hosts
from flows.prefect_login import login_file
from flows.prefect_server import PrefectServer, prefect_server
from flows.processes import start_child, stop
from flows.recovery import close_dead_runs


def serve_pages(config: PipelineConfig, mlflow_port: int, prefect_port: int) -> None:
    """Serve both pages; returns when interrupted. Raises UserError when a server does not start."""
    prepare_environment(config)
    uri = tracking_uri(config)
    log = state_dir(config) / "logs" / "mlflow-server.log"
    with prefect_server(state_dir(config), prefect_port) as server:
        mlflow = start_child(_mlflow_server(config, mlflow_port), log) if not uri.startswith("http") else None
        try:
            server.wait()
            close_dead_runs(config)
            print(f"MLflow   {uri if mlflow is None else f'http://127.0.0.1:{mlflow_port}'}")
            print(f"Prefect  {server.ui_url}")
            if server.ours:
                show_login(server, state_dir(config))
            print("Ctrl-C ends both.", flush=True)
            while not server.ended() and (mlflow is None or mlflow.poll() is None):
                time.sleep(0.5)
            raise UserError(f"a page's server ended; the logs are in {log.parent}")
        finally:
            if mlflow is not None:
                stop(mlflow)


def show_login(server: PrefectServer, folder: Path) -> None:
    """What the page asks for once, and what a shell needs to speak to the server."""
    print(f"         its page asks once for {server.login}")
    print(f"         for `prefect` and `plm` in another terminal: export PREFECT_API_URL={server.api_url} \\")
    print(f'           PREFECT_API_AUTH_STRING="$(cat {shlex.quote(str(login_file(folder)))})"')


def _mlflow_server(config: PipelineConfig, port: int) -> list[str]:
    hosts = loopback_hosts(port)
    return [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--allowed-hosts", ",".join(hosts), "--cors-allowed-origins", ",".join(f"http://{host}" for host in hosts)),
        *("--backend-store-uri", tracking_uri(config)),
        *("--default-artifact-root", str(state_dir(config) / "mlartifacts")),
    ]
