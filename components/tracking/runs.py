"""MLflow records that never stop a run: one parent run per pipeline run, a child per step, everything through a disk spool.

What cannot be sent waits in `<state_dir>/spool` and is sent when the server answers again, at the latest by the next
pipeline run.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.errors import UserError
from components.settings import holds_credentials
from components.tracking.database import damaged, prepare_database, sqlite_path
from components.tracking.send import one_line, refused
from components.tracking.settings import TrackingConfig
from components.tracking.spool import PARENT_TAG, Spool

log = logging.getLogger(__name__)
PARAM_LENGTH = 6000  # MLflow's own limit


def tracking_uri(settings: TrackingConfig) -> str:
    """The MLflow tracking URI: `tracking.uri`, MLflow's own MLFLOW_TRACKING_URI, or SQLite in the state folder.

    Raises UserError for credentials in it: it is printed, logged and handed to Ray jobs.
    """
    named = settings.uri or os.environ.get("MLFLOW_TRACKING_URI")
    if named and holds_credentials(named):
        raise UserError(
            "MLFLOW_TRACKING_URI: holds credentials, and is shown and stored; give them as MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD"
        )
    return named or f"sqlite:///{state_dir(settings) / 'mlflow.db'}"


def state_dir(settings: TrackingConfig) -> Path:
    """Absolute local folder of the SQLite stores, logs and spools."""
    return Path(settings.state_dir).absolute()


def store_is_there(settings: TrackingConfig) -> bool:
    """False where the store is an SQLite file that is not on this machine, or not yet; a client would make it."""
    uri = tracking_uri(settings)
    return not uri.startswith("sqlite:///") or Path(uri.removeprefix("sqlite:///")).exists()


def tracking_client(settings: TrackingConfig) -> Any:
    """An MLflow client on the config's tracking store; a database of this machine is made, or upgraded, first."""
    from mlflow import MlflowClient

    prepare_database(tracking_uri(settings))
    return MlflowClient(tracking_uri=tracking_uri(settings))


def open_tracking(settings: TrackingConfig) -> tuple[Any, str]:
    """A client that has really spoken to the store, and the experiment's id; made where it is missing.

    Raises UserError in one line when the store cannot be reached or used, or the experiment was deleted.
    """
    uri = tracking_uri(settings)
    try:
        reach(uri)
        client = tracking_client(settings)
        return client, _experiment_id(settings, client)
    except UserError:
        raise
    except Exception as error:  # requests, sqlalchemy and MLflow families: each means the same to the user
        text = " ".join(str(error).split())
        if (path := sqlite_path(uri)) and any(
            word in text for word in ("malformed", "not a database", "no such table")
        ):
            raise damaged(path, text) from None
        raise UserError(
            f"tracking {uri}: cannot be reached ({type(error).__name__}: {text[:160]}); start it, change tracking.uri, or "
            "set tracking.required=false to run without"
        ) from None


def _experiment_id(settings: TrackingConfig, client: Any) -> str:
    from mlflow.exceptions import MlflowException

    name = settings.experiment
    found = client.get_experiment_by_name(name)
    if found is None:
        local = tracking_uri(settings).startswith("sqlite:")
        location = str(state_dir(settings) / "mlartifacts") if local else None
        try:
            made: str = client.create_experiment(name, artifact_location=location)
            return made
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)  # another start made it meanwhile
    if found.lifecycle_stage != "active":
        raise UserError(
            f"tracking.experiment {name}: was deleted in MLflow; bring it back (MLFLOW_TRACKING_URI="
            f"{tracking_uri(settings)} "
            f"mlflow experiments restore --experiment-id {found.experiment_id}) or name another: tracking.experiment=…"
        )
    id: str = found.experiment_id
    return id


def reach(uri: str) -> None:
    """Ask an MLflow server whether it is there, with MLflow's own token, password, certificates and proxies.

    Twice, 8 s each: MLflow keeps connections, and one that a proxy has closed meanwhile fails at the first use.
    """
    if not uri.startswith("http"):
        return
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    http_request(get_default_host_creds(uri), "/health", "GET", max_retries=1, timeout=8, raise_on_status=False)


class SilentTracker:
    """Records nothing: for tests, and for runs with `tracking.required: false` while the store is away."""

    run_id: str | None = None

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None, at: int | None = None) -> None:
        return

    def log_params(self, params: Mapping[str, Any]) -> None:
        return

    def log_file(self, path: str | Path, folder: str | None = None) -> None:
        return

    def log_dataset(self, name: str, source: str, digest: str, context: str) -> None:
        return

    def tag(self, key: str, value: str) -> None:
        return

    def end(self, status: str) -> None:
        return


class RunTracker:
    """One MLflow run. Every call but `log_file` only writes to the spool; `end` waits a little for what is in it."""

    def __init__(
        self, client: Any, run_id: str | None, spool_dir: Path, create: Mapping[str, Any] | None = None
    ) -> None:
        self._client = client
        self._spool = Spool(client, spool_dir, {"run": run_id} if run_id else {"create": dict(create or {})})

    @property
    def run_id(self) -> str | None:
        """None while a run that is to be made later waits for the server."""
        return self._spool.run_id

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None, at: int | None = None) -> None:
        when = milliseconds() if at is None else at
        self._spool.put(*([name, float(value), when, step or 0] for name, value in metrics.items()))

    def log_params(self, params: Mapping[str, Any]) -> None:
        self._spool.put({"params": {key: str(value)[:PARAM_LENGTH] for key, value in params.items()}})

    def log_file(self, path: str | Path, folder: str | None = None) -> None:
        """Upload a file now; while the server is away, keep a copy of it for later."""
        try:
            if self.run_id is None or self._spool.resting():
                self._keep(Path(path), folder)
            else:
                self._client.log_artifact(self.run_id, str(path), folder)
        except Exception as error:  # tracking must not stop the run, whatever it raises
            log.warning("tracking: %s not recorded yet: %s", path, one_line(error))
            if not refused(error):
                self._spool.rest()
                self._keep(Path(path), folder)

    def log_dataset(self, name: str, source: str, digest: str, context: str) -> None:
        """Record a data set by reference; `digest` is the manifest's."""
        dataset = {"name": name, "digest": digest, "source_type": "uri", "source": json.dumps({"uri": source})}
        self._spool.put({"dataset": {"dataset": dataset, "context": context}})

    def tag(self, key: str, value: str) -> None:
        self._spool.put({"tag": [key, value]})

    def end(self, status: str) -> None:
        """Close the run as FINISHED, FAILED or KILLED, after all that was recorded before."""
        self._spool.put({"status": {"name": status, "at": milliseconds()}})
        self._spool.close()

    def _keep(self, path: Path, folder: str | None) -> None:
        copy = Path(uuid.uuid4().hex[:8]) / path.name
        kept = self._spool.file.files / copy
        try:
            kept.parent.mkdir(parents=True)
            shutil.copyfile(path, kept)
        except OSError as error:
            log.warning("tracking: %s not recorded: %s", path, error)
            return
        self._spool.put({"file": [str(copy), folder]})


def milliseconds() -> int:
    return int(time.time() * 1000)


def spool_dir(settings: TrackingConfig) -> Path:
    return state_dir(settings) / "spool"


def start_run(
    settings: TrackingConfig,
    client: Any,
    experiment: str,
    name: str,
    tags: Mapping[str, str],
    parent: str | None = None,
) -> RunTracker:
    """Create an MLflow run, below `parent` where one is given; such a child is made later when the server is away."""
    links = {PARENT_TAG: parent} if parent else {}
    create = {
        "experiment_id": experiment,
        "start_time": milliseconds(),
        "run_name": name,
        "tags": {"mlflow.source.name": "plm", **tags, **links},
    }
    try:
        return RunTracker(client, client.create_run(**create).info.run_id, spool_dir(settings))
    except Exception as error:  # whatever MLflow raises: an outage after the parent's start never stops a run
        if parent is None or refused(error):
            raise
        log.warning("tracking is away, the run of %s is made later: %s", name, one_line(error))
        return RunTracker(client, None, spool_dir(settings), create)
