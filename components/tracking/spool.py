"""What is to be recorded is on disk before it is sent: a dead, slow or restarting server costs no time and no entry.

A spool is a file of JSON lines of one process and one MLflow run. Its first line names the run (`{"run": id}`) or says how
to make it (`{"create": {...}}`, when the server was away at its start); each other line is a metric point
`[name, value, milliseconds, step]` or `{"tag"|"params"|"dataset"|"file"|"status": ...}`. A side thread sends the lines and
takes them out of the file; sending a line twice changes nothing. The owner holds a lock on the file as long as it lives;
what a dead process left is sent by whoever starts next.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from components.tracking.send import RunRefused, one_line, send

log = logging.getLogger(__name__)
RETRY_SECONDS = 20.0
FAILURES = 3  # spools in a row that cannot be sent, until the server counts as away
FLUSH_SECONDS = 15.0
PARENT_TAG = "mlflow.parentRunId"

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
            send_or_put_aside(self._client, self.file)
        except Exception as error:  # tracking must not stop the run, whatever it raises
            if not self.resting():
                log.warning("tracking is away, entries wait in %s: %s", self.file.path, one_line(error))
            self.rest()
        else:
            self._rest_until = 0.0


def replay_spools(client: Any, folder: Path) -> int:
    """Send every spool that ended processes left behind, the longest tried last; returns the number of points.

    One that cannot be sent is left for the next start, and holds up no other; after FAILURES in a row the server counts as
    away. One whose run the server refuses to make is put aside as `<name>.refused`.
    """
    total = failures = 0
    remove_free_locks(folder)
    for path in sorted(folder.glob("*.jsonl"), key=modified):
        file = SpoolFile.found(path)
        if file is None:
            continue
        try:
            with locked(path):
                total += send_or_put_aside(client, file)
            failures = 0
        except Timeout:
            continue  # its process lives
        except Exception as error:
            log.warning("tracking: %s still waits: %s", path, one_line(error))
            with contextlib.suppress(OSError):
                os.utime(path)
            failures += 1
            if failures == FAILURES:
                break
    return total


def send_or_put_aside(client: Any, file: SpoolFile) -> int:
    """Send a spool; where its run cannot ever be made, keep it under a name that nobody sends, and say so."""
    try:
        return send(client, file)
    except RunRefused as error:
        aside = file.path.with_suffix(".refused")
        with contextlib.suppress(FileNotFoundError):
            file.path.replace(aside)
        log.warning("tracking: its run is refused, %s keeps what it held: %s", aside, one_line(error))
        return 0


def modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def remove_free_locks(folder: Path) -> None:
    """Remove the locks of spools that are gone: a process that was killed leaves its own."""
    for lock in folder.glob("*.lock"):
        path = lock.with_suffix(".jsonl")
        if not path.exists():
            with contextlib.suppress(OSError), locked(path):  # whose end removes it
                pass


def parents_of_waiting(folder: Path) -> set[str]:
    """Ids of the runs that have children which are not made yet."""
    headers = [file.header for path in folder.glob("*.jsonl") if (file := SpoolFile.found(path))]
    return {header["create"].get("tags", {}).get(PARENT_TAG, "") for header in headers if "create" in header}


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a spool file against other processes while the block runs. Timeout when another one does."""
    lock = path.with_suffix(".lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock, blocking=False, thread_local=False):
        try:
            yield
        finally:
            if not path.exists():
                with contextlib.suppress(OSError):
                    os.unlink(lock)
