"""What the MLflow run of a whole pipeline run holds, however the run ends."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.errors import UserError
from components.pipeline.config import PipelineConfig
from components.tracking.runs import SilentTracker, open_tracking, spool_dir, start_run, tracking_uri
from components.tracking.send import one_line
from components.tracking.spool import replay_spools

log = logging.getLogger(__name__)


@contextlib.contextmanager
def ended(tracker: Any) -> Iterator[None]:
    """Close an MLflow run truthfully: FINISHED, FAILED on an error, KILLED when something stopped us."""
    try:
        yield
    except Exception:
        tracker.end("FAILED")
        raise
    except BaseException:
        tracker.end("KILLED")
        raise
    tracker.end("FINISHED")


def open_parent(config: PipelineConfig, name: str) -> tuple[Any, str | None]:
    """The tracker of a new run of this name, and its experiment; what earlier runs could not send is sent first.

    UserError when tracking cannot be reached or used; where the config does not require it, that line is a warning and the
    tracker a silent one.
    """
    try:
        client, experiment = open_tracking(config.tracking)
        replay_spools(client, spool_dir(config.tracking))
        return start_run(config.tracking, client, experiment, name, {"plm.pipeline": config.name}), experiment
    except Exception as error:  # ours, requests, sqlalchemy and MLflow families
        line = (
            str(error)
            if isinstance(error, UserError)
            else f"tracking {tracking_uri(config.tracking)}: {one_line(error)}"
        )
        if config.tracking.required:
            raise UserError(line) from None
        log.warning("this run is not recorded: %s", line)
        return SilentTracker(), None


@contextlib.contextmanager
def system_metrics(config: PipelineConfig, tracker: Any) -> Iterator[None]:
    """Record the machine's load on the run while the block runs."""
    if not (config.tracking.system_metrics and tracker.run_id):
        yield
        return
    import mlflow
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    mlflow.set_tracking_uri(tracking_uri(config.tracking))
    monitor = SystemMetricsMonitor(tracker.run_id, sampling_interval=5, samples_before_logging=2)
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()


def log_text(tracker: Any, name: str, text: str) -> None:
    """Keep a text as a file of the run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_text(text, encoding="utf-8")
        tracker.log_file(path)


def mlflow_run_url(config: PipelineConfig, experiment: str, run_id: str) -> str:
    """The page of a run; for a local store the one that `plm ui` serves."""
    uri = tracking_uri(config.tracking)
    base = uri.rstrip("/") if uri.startswith("http") else f"http://127.0.0.1:{config.tracking.mlflow_port}"
    return f"{base}/#/experiments/{experiment}/runs/{run_id}"


def git_commit() -> str:
    """The commit of the code that runs, or nothing outside a checkout."""
    try:
        folder = Path(__file__).resolve().parent
        answer = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip()
