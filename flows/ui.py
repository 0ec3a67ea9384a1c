"""`plm ui`: the MLflow and Prefect pages over the state folder, on loopback, until Ctrl-C."""

from __future__ import annotations

import sys
import time

from components.config import PipelineConfig
from components.errors import UserError
from components.tracking import state_dir, tracking_uri
from flows.environment import prepare_environment
from flows.prefect_server import prefect_server
from flows.processes import start_child, stop
from flows.recovery import close_dead_runs


def serve_pages(config: PipelineConfig, mlflow_port: int, prefect_port: int) -> None:
    """Serve both pages; returns when interrupted. Raises UserError when a server does not start."""
    prepare_environment(config)
    uri = tracking_uri(config)
    log = state_dir(config) / "logs" / "mlflow-server.log"
    command = [
        *(
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(mlflow_port),
            "--workers",
            "1",
        ),
        *("--backend-store-uri", uri, "--default-artifact-root", str(state_dir(config) / "mlartifacts")),
    ]
    with prefect_server(state_dir(config), prefect_port) as server:
        mlflow = start_child(command, log) if not uri.startswith("http") else None
        try:
            server.wait()
            close_dead_runs(config)
            print(f"MLflow   {uri if mlflow is None else f'http://127.0.0.1:{mlflow_port}'}")
            print(f"Prefect  {server.ui_url}")
            print("Ctrl-C ends both.", flush=True)
            while not server.ended() and (mlflow is None or mlflow.poll() is None):
                time.sleep(0.5)
            raise UserError(f"a page's server ended; the logs are in {log.parent}")
        finally:
            if mlflow is not None:
                stop(mlflow)
