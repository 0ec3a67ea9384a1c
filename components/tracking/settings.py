"""Where runs, metrics and models are recorded."""

from __future__ import annotations

from pydantic import Field

from components.settings import LocalPath, Port, Settings, Uri


class TrackingConfig(Settings):
    """Where runs, metrics and models are recorded."""

    uri: Uri | None = Field(None, description="MLflow tracking URI; default: SQLite in state_dir")
    state_dir: LocalPath = Field("./runs", description="local folder of mlflow.db and prefect.db")
    mlflow_port: Port = Field(5000, description="of the MLflow page that `plm ui` serves, and that links lead to")
    prefect_port: Port = Field(4200, description="of its Prefect page")
    experiment: str = Field("plm-pipeline", description="MLflow's experiment")
    required: bool = Field(True, description="refuse to start when tracking is unreachable")
    system_metrics: bool = Field(True, description="whether MLflow records what the machine does")
