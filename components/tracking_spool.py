"""What is to be recorded is on disk before it is sent: a dead, slow or restarting server costs no time and no entry.

A spool is a file of JSON lines of one process and one MLflow run. Its first line names the run (`{"run": id}`) or says how
to make it (`{"create": {...}}`, when the server was away at its start); each other line is a metric point
`[name, value, milliseconds, step]` or `{"tag"|"params"|"dataset"|"file"|"status": ...}`. A side thread sends the lines and
takes them out of the file; sending a line twice changes nothing. The owner holds a lock on the file as long as it lives;
what a dead process left is sent by whoever starts next.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)
RETRY_SECONDS = 20.0
FLUSH_SECONDS = 15.0
POINTS_PER_CALL = 1000  # MLflow's limits
PARAMS_PER_CALL = 100
PARENT_TAG = "mlflow.parentRunId"
REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST")

Entry = Mapping[str, Any] | Sequence[Any]


class SpoolFile:
    """The file: appended to by one thread while another takes out what was sent. Every call is short."""

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path, self.header = path, dict(header)
        self._guard = threading.Lock()

    @classmethod
    def found(cls, path: Path) -> SpoolFile | None:
        """A file that lies there, or None for one without a header."""
        with contextlib.suppress(OSError, ValueError), open(path, encoding="utf-8") as file:
            header = json.loads(file.readline())
            if isinstance(header, dict) and header.keys() & {"run", "create"}:
                return cls(path, header)
        return None

    @property
    def files(self) -> Path:
        """Folder of the copies of files that wait."""
        return self.path.with_suffix(".files")

    def append(self, entries: Sequence[Entry]) -> None:
        with self._guard:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8") as file:
                if not file.tell():
                    file.write(json.dumps(self.header) + "\n")
                file.writelines(json.dumps(entry) + "\n" for entry in entries)

    def read(self) -> tuple[list[Any], int]:
        """The entries that wait, and how many lines of the file they are. A line that a crash cut off is left out."""
        with self._guard:
            if not self.path.exists():
                return [], 0
            lines = self.path.read_text(encoding="utf-8").splitlines()[1:]
        entries = []
        for line in lines:
            with contextlib.suppress(ValueError):
                entries.append(json.loads(line))
        return entries, len(lines)

    def drop(self, lines: int) -> None:
        """Take out the oldest lines; with the last one the file goes."""
        with self._guard:
            left = self.path.read_text(encoding="utf-8").splitlines()[1 + lines :]
            if left:
                self._replace(left)
            else:
                self.path.unlink()

    def name_run(self, run_id: str) -> None:
        """Note that the run now exists, so that it is not made again."""
        with self._guard:
            self.header = {"run": run_id}
            if self.path.exists():
                self._replace(self.path.read_text(encoding="utf-8").splitlines()[1:])

    def _replace(self, lines: Sequence[str]) -> None:
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(f"{line}\n" for line in [json.dumps(self.header), *lines]), encoding="utf-8")
        temporary.replace(self.path)


class Spool:
    """A spool file with the thread that empties it."""

    def __init__(self, client: Any, folder: Path, header: Mapping[str, Any]) -> None:
        name = f"{header.get('run', 'new')}-{uuid.uuid4().hex[:8]}"
        self.file = SpoolFile(folder / f"{name}.jsonl", header)
        self._client = client
        self._wake, self._closing = threading.Event(), False
        self._thread: threading.Thread | None = None
        self._rest_until = 0.0
        self._start = threading.Lock()
        self._held = contextlib.ExitStack()  # the lock, until the thread ends

    @property
    def run_id(self) -> str | None:
        """The MLflow run; None as long as it could not be made."""
        return self.file.header.get("run")

    def put(self, *entries: Entry) -> None:
        """Keep entries for sending. A disk that takes none is said once, and stops nothing."""
        try:
            self._hold()
            self.file.append(entries)
        except OSError as error:
            log.warning("tracking: %d entries are lost, %s: %s", len(entries), self.file.path, error)
            return
        self._wake.set()

    def _hold(self) -> None:
        with self._start:
            if self._thread is None and not self._closing:
                self._held.enter_context(locked(self.file.path))
                self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
                self._thread.start()

    def resting(self) -> bool:
        """Whether the server was away a moment ago."""
        return time.monotonic() < self._rest_until

    def rest(self) -> None:
        """Leave the server alone for a while."""
        self._rest_until = time.monotonic() + RETRY_SECONDS

    def close(self) -> None:
        """Send what waits, for at most FLUSH_SECONDS; what is left stays on disk for the next start."""
        self._closing = True
        if self._thread is not None:
            self._wake.set()
            self._thread.join(FLUSH_SECONDS)

    def _run(self) -> None:
        with self._held:
            while not self._closing:
                self._wake.wait(RETRY_SECONDS if self.file.path.exists() else None)
                self._wake.clear()
                if self._closing or not self.resting():
                    self._send()
            if self.file.path.exists() and not self.resting():
                self._send()  # what came while the last call was under way

    def _send(self) -> None:
        try:
            send(self._client, self.file)
        except Exception as error:  # tracking must not stop the run, whatever it raises
            if not self.resting():
                log.warning("tracking is away, entries wait in %s: %s", self.file.path, one_line(error))
            self.rest()
        else:
            self._rest_until = 0.0


def send(client: Any, file: SpoolFile) -> int:
    """Send what a spool holds and take it out; returns how many points it held. Raises what the client raises."""
    entries, lines = file.read()
    if not lines:
        return 0
    if "create" in file.header:
        file.name_run(client.create_run(**file.header["create"]).info.run_id)
    run_id = file.header["run"]
    points = [entry for entry in entries if isinstance(entry, list)]
    for i in range(0, len(points), POINTS_PER_CALL):
        send_points(client, run_id, points[i : i + POINTS_PER_CALL])
    for entry in entries:
        if isinstance(entry, dict):
            with accepted(f"{run_id}: {next(iter(entry))}"):
                send_other(client, run_id, entry, file)
    file.drop(lines)
    if any(isinstance(entry, dict) and "file" in entry for entry in entries):
        shutil.rmtree(file.files, ignore_errors=True)
    return len(points)


def send_points(client: Any, run_id: str, points: Sequence[Sequence[Any]]) -> None:
    """Send metric points in one call; one by one where the server refuses some, which are named and left out."""
    from mlflow.entities import Metric

    try:
        client.log_batch(run_id, metrics=[Metric(*point) for point in points])
    except Exception as error:
        if not refused(error):
            raise
        if len(points) == 1:
            log.warning("tracking: %s refused: %s", points[0], one_line(error))
            return
        for point in points:
            send_points(client, run_id, [point])


def send_other(client: Any, run_id: str, entry: Mapping[str, Any], file: SpoolFile) -> None:
    """Send an entry that is not a point."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param

    ((kind, value),) = entry.items()
    if kind == "tag":
        client.set_tag(run_id, *value)
    elif kind == "params":
        rows = [Param(key, text) for key, text in value.items()]
        for i in range(0, len(rows), PARAMS_PER_CALL):
            client.log_batch(run_id, params=rows[i : i + PARAMS_PER_CALL])
    elif kind == "dataset":
        tags = [InputTag("mlflow.data.context", value["context"])]
        client.log_inputs(run_id, datasets=[DatasetInput(dataset=Dataset(**value["dataset"]), tags=tags)])
    elif kind == "file":
        copy, folder = value
        if (file.files / copy).exists():
            client.log_artifact(run_id, str(file.files / copy), folder)
    elif kind == "status":
        client.set_terminated(run_id, value["name"], end_time=value["at"])


@contextlib.contextmanager
def accepted(what: str) -> Iterator[None]:
    """Go on, and say so, where the server answered and said no: sending the same again would not help."""
    try:
        yield
    except Exception as error:
        if not refused(error):
            raise
        log.warning("tracking: %s refused: %s", what, one_line(error))


def refused(error: Exception) -> bool:
    """Whether the server answered, and said no: then it is there, and only this one call was wrong."""
    return getattr(error, "error_code", "") in REFUSALS


def replay_spools(client: Any, folder: Path) -> int:
    """Send every spool that ended processes left behind; returns the number of points. Stops at the first that cannot be."""
    total = 0
    for path in sorted(folder.glob("*.jsonl")):
        file = SpoolFile.found(path)
        if file is None:
            continue
        try:
            with locked(path):
                total += send(client, file)
        except BlockingIOError:
            continue  # its process lives
        except Exception as error:
            log.warning("tracking: %s still waits: %s", path, one_line(error))
            return total
    return total


def parents_of_waiting(folder: Path) -> set[str]:
    """Ids of the runs that have children which are not made yet."""
    headers = [file.header for path in folder.glob("*.jsonl") if (file := SpoolFile.found(path))]
    return {header["create"].get("tags", {}).get(PARENT_TAG, "") for header in headers if "create" in header}


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a spool file against other processes while the block runs. BlockingIOError when another one does."""
    lock = path.with_suffix(".lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield
        finally:
            if not path.exists():
                with contextlib.suppress(OSError):
                    os.unlink(lock)


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
