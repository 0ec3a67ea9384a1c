"""MLflow records that never stop a run: one parent run per pipeline run, a child per step, metrics through a disk spool.

Metrics go to a queue; a side thread sends them. What cannot be sent lies in `<state_dir>/spool/<run id>.jsonl` and is sent
when the server answers again, at the latest by the next pipeline run.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.config import PipelineConfig
from components.errors import UserError

log = logging.getLogger(__name__)
RETRY_SECONDS = 20.0
FLUSH_SECONDS = 15.0
PARAMS_PER_CALL = 100
PARAM_LENGTH = 500


def tracking_uri(config: PipelineConfig) -> str:
    """The MLflow tracking URI: `tracking.uri`, MLflow's own MLFLOW_TRACKING_URI, or SQLite in the state folder."""
    named = config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
    return named or f"sqlite:///{state_dir(config) / 'mlflow.db'}"


def state_dir(config: PipelineConfig) -> Path:
    """Absolute local folder of the SQLite stores, logs and spools."""
    return Path(config.tracking.state_dir).absolute()


def tracking_client(config: PipelineConfig) -> Any:
    """An MLflow client on the config's tracking store."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=tracking_uri(config))


def open_tracking(config: PipelineConfig) -> tuple[Any, str]:
    """A client that has really spoken to the store, and the experiment's id; made where it is missing.

    Raises UserError in one line when the store cannot be reached.
    """
    try:
        _reach(tracking_uri(config))
        client = tracking_client(config)
        return client, _experiment_id(config, client)
    except Exception as error:  # requests, sqlalchemy and MLflow families: each means the same to the user
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        raise UserError(
            f"tracking {tracking_uri(config)}: cannot be reached ({reason}); start it, change tracking.uri, or set "
            "tracking.required=false to run without"
        ) from None


def _experiment_id(config: PipelineConfig, client: Any) -> str:
    if found := client.get_experiment_by_name(config.tracking.experiment):
        return found.experiment_id
    local = tracking_uri(config).startswith("sqlite:")
    location = str(state_dir(config) / "mlartifacts") if local else None
    return client.create_experiment(config.tracking.experiment, artifact_location=location)


def _reach(uri: str) -> None:
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    elif uri.startswith("http"):
        from urllib.request import urlopen

        with urlopen(f"{uri.rstrip('/')}/health", timeout=8):
            pass


class SilentTracker:
    """Records nothing: for tests, and for runs with `tracking.required: false` while the store is away."""

    run_id: str | None = None

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
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
    """One MLflow run. Every call returns at once or fails open; `end` waits a little for what is queued."""

    def __init__(self, client: Any, run_id: str, spool_dir: Path) -> None:
        self.run_id: str | None = run_id
        self._client = client
        self._spool = MetricSpool(client, run_id, spool_dir)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        now = int(time.time() * 1000)
        self._spool.put([(name, float(value), now, step or 0) for name, value in metrics.items()])

    def log_params(self, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        rows = [Param(key, str(value)[:PARAM_LENGTH]) for key, value in params.items()]
        for i in range(0, len(rows), PARAMS_PER_CALL):
            self._open("params", lambda i=i: self._client.log_batch(self.run_id, params=rows[i : i + PARAMS_PER_CALL]))

    def log_file(self, path: str | Path, folder: str | None = None) -> None:
        self._open(str(path), lambda: self._client.log_artifact(self.run_id, str(path), folder))

    def log_dataset(self, name: str, source: str, digest: str, context: str) -> None:
        """Record a data set by reference; `digest` is the manifest's."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        entity = Dataset(name=name, digest=digest, source_type="uri", source=json.dumps({"uri": source}))
        item = DatasetInput(dataset=entity, tags=[InputTag("mlflow.data.context", context)])
        self._open(name, lambda: self._client.log_inputs(self.run_id, datasets=[item]))

    def tag(self, key: str, value: str) -> None:
        if self._spool.resting():
            self._spool.keep({"tag": [key, value]})
            return
        self._open(key, lambda: self._client.set_tag(self.run_id, key, value))

    def end(self, status: str) -> None:
        """Send what is queued and close the run as FINISHED, FAILED or KILLED; what cannot be said now is spooled."""
        self._spool.close()
        try:
            self._client.set_terminated(self.run_id, status)
        except Exception as error:  # tracking must not stop the run, whatever it raises
            self._spool.keep({"status": status})
            log.warning("tracking: status %s waits: %s", status, " ".join(str(error).split())[:160])

    def _open(self, what: str, call: Any) -> None:
        if self._spool.resting():
            log.warning("tracking is away: %s not recorded", what)
            return
        try:
            call()
        except Exception as error:  # tracking must not stop the run, whatever it raises
            if not refused(error):
                self._spool.rest()
            log.warning("tracking: %s not recorded: %s", what, " ".join(str(error).split())[:200])


class MetricSpool:
    """Sends metric points from a side thread; what cannot be sent waits on disk, in order, and nothing is lost."""

    def __init__(self, client: Any, run_id: str, folder: Path) -> None:
        self.path = folder / f"{run_id}.jsonl"
        self._client, self._run_id = client, run_id
        self._queue: queue.Queue[list[tuple[str, float, int, int]] | None] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._rest_until = 0.0

    def put(self, points: list[tuple[str, float, int, int]]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
            self._thread.start()
        self._queue.put(points)

    def rest(self) -> None:
        """Leave the store alone for a while; points go to disk meanwhile."""
        self._rest_until = time.monotonic() + RETRY_SECONDS

    def resting(self) -> bool:
        return time.monotonic() < self._rest_until

    def close(self) -> None:
        if self._thread is None:
            return
        self._queue.put(None)
        self._thread.join(FLUSH_SECONDS)
        self._thread = None

    def _run(self) -> None:
        while True:
            points = self._queue.get()
            closing = points is None
            batch = list(points or [])
            while not self._queue.empty():
                more = self._queue.get_nowait()
                closing = closing or more is None
                batch.extend(more or [])
            self._deliver(batch, last_call=closing)
            if closing:
                return

    def _deliver(self, batch: list[tuple[str, float, int, int]], last_call: bool) -> None:
        if self.resting() and not last_call:
            self._write(batch)
            return
        try:
            replay_spool(self._client, self.path)
            send_points(self._client, self._run_id, batch)
        except Exception as error:  # tracking must not stop the run, whatever it raises
            if not self.resting():
                log.warning("tracking is away, metrics wait in %s: %s", self.path, " ".join(str(error).split())[:160])
            self.rest()
            self._write(batch)

    def keep(self, entry: Any) -> None:
        """Write down what is to be sent later: a point, or a {tag} or {status}."""
        self._write([entry])

    def _write(self, batch: Sequence[Any]) -> None:
        if not batch:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(entry) + "\n" for entry in batch)


def send_points(client: Any, run_id: str, points: Sequence[Sequence[Any]]) -> None:
    """Send (name, value, milliseconds, step) points in batches of at most 1,000, MLflow's limit."""
    from mlflow.entities import Metric

    for i in range(0, len(points), 1000):
        client.log_batch(run_id, metrics=[Metric(*point) for point in points[i : i + 1000]])


def replay_spool(client: Any, path: Path) -> int:
    """Send a spool file and remove it; returns how many points it held. Raises what the client raises."""
    if not path.exists():
        return 0
    lines = path.read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines if line.endswith(("]", "}"))]
    points = [entry for entry in entries if isinstance(entry, list)]
    send_points(client, path.stem, points)
    for entry in entries:
        if isinstance(entry, dict) and "tag" in entry:
            client.set_tag(path.stem, *entry["tag"])
        elif isinstance(entry, dict):
            client.set_terminated(path.stem, entry["status"])
    path.unlink()
    return len(points)


def refused(error: Exception) -> bool:
    """Whether the store answered, and said no: then it is there, and only this one call was wrong."""
    return getattr(error, "error_code", "") in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST")


def replay_spools(client: Any, folder: Path) -> int:
    """Send every spool that earlier runs left behind; stops silently at the first that cannot be sent."""
    total = 0
    for path in sorted(folder.glob("*.jsonl")):
        try:
            total += replay_spool(client, path)
        except Exception as error:  # still away, or the run was deleted: leave it for later
            log.warning("tracking: %s still waits: %s", path, " ".join(str(error).split())[:160])
            return total
    return total


def spool_dir(config: PipelineConfig) -> Path:
    return state_dir(config) / "spool"


def start_run(
    config: PipelineConfig, client: Any, experiment: str, name: str, tags: Mapping[str, str], parent: str | None = None
) -> RunTracker:
    """Create an MLflow run, below `parent` where one is given."""
    links = {"mlflow.parentRunId": parent} if parent else {}
    run = client.create_run(experiment, run_name=name, tags={"mlflow.source.name": "plm", **tags, **links})
    return RunTracker(client, run.info.run_id, spool_dir(config))
