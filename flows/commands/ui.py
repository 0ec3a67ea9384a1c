"""`plm ui`: the MLflow and Prefect pages over the state folder, on loopback, until Ctrl-C."""

from __future__ import annotations

import os
import shlex
import socket
import sys
import time
from pathlib import Path

from components.errors import UserError
from components.pipeline.config import PipelineConfig
from components.tracking.runs import state_dir, tracking_uri
from flows.run.recovery import close_dead_runs
from flows.servers.environment import prepare_environment
from flows.servers.prefect_door import loopback_hosts
from flows.servers.prefect_login import login_file
from flows.servers.prefect_server import PrefectServer, prefect_server
from flows.servers.processes import start_child, stop


def serve_pages(config: PipelineConfig, mlflow_port: int | None = None, prefect_port: int | None = None) -> None:
    """Serve both pages, on the config's ports or these; returns when interrupted.

    Raises UserError for a port that is taken, where another's pages would be shown, and when a server does not start.
    """
    prepare_environment(config)
    uri = tracking_uri(config.tracking)
    mlflow_port = mlflow_port or config.tracking.mlflow_port
    prefect_port = prefect_port or config.tracking.prefect_port
    if not uri.startswith("http"):
        require_free(mlflow_port, "mlflow_port")
    if "PREFECT_API_URL" not in os.environ:
        require_free(prefect_port, "prefect_port")
    log = state_dir(config.tracking) / "logs" / "mlflow-server.log"
    with prefect_server(state_dir(config.tracking), prefect_port) as server:
        mlflow = start_child(_mlflow_server(config, mlflow_port), log) if not uri.startswith("http") else None
        try:
            server.wait()
            close_dead_runs(config)
            print(f"MLflow   {uri if mlflow is None else f'http://127.0.0.1:{mlflow_port}'}")
            print(f"Prefect  {server.ui_url}")
            if server.ours:
                show_login(server, state_dir(config.tracking))
            print("Ctrl-C ends both.", flush=True)
            while not server.ended() and (mlflow is None or mlflow.poll() is None):
                time.sleep(0.5)
            raise UserError(f"a page's server ended; the logs are in {log.parent}")
        finally:
            if mlflow is not None:
                stop(mlflow)


def require_free(port: int, key: str) -> None:
    """UserError where something listens on this port of the machine already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            option = f"--{key.replace('_', '-')}"
            raise UserError(
                f"port {port}: cannot be used ({error.strerror}), another `plm ui`, perhaps; end what uses it, or set "
                f"tracking.{key}, by which links find the pages, or give {option} PORT"
            ) from None


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
        *("--backend-store-uri", tracking_uri(config.tracking)),
        *("--default-artifact-root", str(state_dir(config.tracking) / "mlartifacts")),
    ]
