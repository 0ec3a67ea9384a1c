"""MLflow's SQLite file is whole or not there: made and upgraded under a lock, beside its place, then renamed.

A process that is killed while it makes or upgrades the file leaves `<name>.new-*`, which nobody reads and the next start
removes; two first starts at once wait for each other. What is there but cannot be used has an error of its own.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

from components.errors import UserError

SQLITE = "sqlite:///"
VERSION = "alembic_version"
CHECKED_BYTES = 64 << 20  # of a larger file only the tables are looked at: the rest takes seconds
_ready: set[tuple[str, int]] = set()  # (path, inode) that this process has looked at


def sqlite_path(uri: str) -> Path | None:
    """The file of a tracking URI, None where it is no SQLite file."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def prepare_database(uri: str) -> None:
    """Make the file of an SQLite URI where it is missing, and bring an older one up to date; other URIs are left alone.

    Raises UserError, in one line with the cure, for a file that is damaged, or older and open elsewhere.
    """
    path = sqlite_path(uri)
    if path is None or not path.name or (path.exists() and (str(path), path.stat().st_ino) in _ready):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path):
        _remove_left(path)
        if not path.exists() or not path.stat().st_size:
            _make(path)
        elif (found := _revision(path)) != (wanted := _newest_revision()):
            _upgrade(path, found, wanted)
    _ready.add((str(path), path.stat().st_ino))


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock beside the file; the kernel frees it with its process."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # a file system without locks: as before, one start at a time
            held.enter_context(FileLock(path.with_name(f".{path.name}.lock")))
        yield


def _remove_left(path: Path) -> None:
    for left in path.parent.glob(f"{path.name}.new-*"):
        left.unlink(missing_ok=True)


def _make(path: Path) -> None:
    """A new database with its first experiment, so that two first starts do not both make that one."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    new = _beside(path)
    uri = f"{SQLITE}{new}"
    with _engine(new) as engine:
        SqlAlchemyStore._engine_map[uri] = engine
        try:
            SqlAlchemyStore(uri, str(path.parent / "mlartifacts"))
        finally:
            del SqlAlchemyStore._engine_map[uri]
    _put(new, path)


def _upgrade(path: Path, found: str | None, wanted: str) -> None:
    """Bring a copy up to date and put it in place; the old file stays beside it under the name of its revision."""
    if users := _users(path):
        raise UserError(
            f"{path}: was made by another version of MLflow, and {users} has it open; end that (`plm ui`, say), run again"
        )
    new = _beside(path)
    try:
        _copy(path, new)
        _bring_up_to_date(new)
    except Exception as error:  # alembic and sqlalchemy families, whose upgrade of this file cannot be finished
        raise damaged(path, f"its schema {found} cannot be upgraded: {_one_line(error)}") from None
    if (reached := _revision(new)) != wanted:
        raise damaged(path, f"its schema {found} leads to {reached} instead of {wanted}")
    os.replace(path, path.with_name(f"{path.name}.before-{wanted[:12]}"))
    _put(new, path)


def _bring_up_to_date(path: Path) -> None:
    from mlflow.store.db.utils import _upgrade_db

    with _engine(path) as engine:
        _upgrade_db(engine)


@contextlib.contextmanager
def _engine(path: Path) -> Iterator[Any]:
    """MLflow's engine on a file that nobody sees yet: nothing of it is flushed to the disk before it is whole."""
    from mlflow.store.db.utils import create_sqlalchemy_engine
    from sqlalchemy import event

    engine = create_sqlalchemy_engine(f"{SQLITE}{path}")
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
    try:
        yield engine
    finally:
        engine.dispose()


def _put(new: Path, path: Path) -> None:
    """Give a finished file its name, at once, with what was written to it on the disk."""
    with sqlite3.connect(new) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    with open(new, "rb") as file:
        os.fsync(file.fileno())
    for suffix in ("-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    os.replace(new, path)


def _copy(path: Path, to: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as source, contextlib.closing(sqlite3.connect(to)) as target:
        source.backup(target)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.new-{uuid.uuid4().hex[:8]}")


def _revision(path: Path) -> str | None:
    """The revision of the tables in a file. Raises UserError when it is no whole database of MLflow's."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            names = {row[0] for row in database.execute("select name from sqlite_master where type = 'table'")}
            if path.stat().st_size < CHECKED_BYTES:
                problem = database.execute("PRAGMA quick_check(1)").fetchone()[0]
                if problem != "ok":
                    raise damaged(path, problem)
            if "experiments" not in names:
                raise damaged(path, "it has no tables of MLflow's")
            row = database.execute("select version_num from alembic_version").fetchone() if VERSION in names else None
            return row[0] if row else None
    except sqlite3.DatabaseError as error:
        raise damaged(path, str(error)) from None


def _newest_revision() -> str:
    from mlflow.store.db.utils import _get_latest_schema_revision

    revision: str = _get_latest_schema_revision()
    return revision


def _users(path: Path) -> str:
    """A process, other than this one, that has the file open."""
    for process in psutil.process_iter(["pid", "name"]):
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and any(file.path == str(path) for file in process.open_files()):
                return f"process {process.pid} ({process.info['name']})"
    return ""


def damaged(path: Path, reason: str) -> UserError:
    """The error for a file that cannot be used, with both cures."""
    return UserError(
        f"{path}: is damaged ({' '.join(reason.split())[:160]}); it holds MLflow's records of earlier runs, not their models. "
        f"Put a copy of it back, or go on with a new one: `mv {path} {path}.damaged`"
    )


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
