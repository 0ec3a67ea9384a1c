"""MLflow's SQLite file appears whole or not at all, whoever is killed or comes at once; a damaged one has its own message."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from components.errors import UserError
from components.pipeline.config import PipelineConfig
from components.tracking.database import SQLITE, prepare_database
from components.tracking.runs import open_tracking, start_run

pytestmark = pytest.mark.case("R3")

FORK = multiprocessing.get_context("fork")  # a child that need not import MLflow again


def first_start(folder: Path) -> None:
    config = config_of(folder)
    client, experiment = open_tracking(config.tracking)
    os._exit(0 if start_run(config.tracking, client, experiment, "first", {}).run_id else 1)


def killed_among_the_migrations(folder: Path) -> None:
    def kill() -> None:
        while not any(path.stat().st_size for path in folder.glob("mlflow.db*")):
            time.sleep(0.001)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    prepare(folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with one run in it."""
    folder = tmp_path_factory.mktemp("made")
    client, experiment = open_tracking(config_of(folder).tracking)
    client.set_terminated(client.create_run(experiment, run_name="kept").info.run_id)
    return folder / "mlflow.db"


def config_of(folder: Path) -> PipelineConfig:
    return PipelineConfig.model_validate({"tracking": {"state_dir": str(folder)}})


def prepare(folder: Path) -> None:
    prepare_database(f"{SQLITE}{folder}/mlflow.db")


def test_two_first_starts_at_once_both_live(made: Path, tmp_path: Path) -> None:
    starts = [FORK.Process(target=first_start, args=(tmp_path,)) for _ in range(2)]
    for start in starts:
        start.start()
    for start in starts:
        start.join(100)
    assert [start.exitcode for start in starts] == [0, 0]
    client, experiment = open_tracking(config_of(tmp_path).tracking)
    assert len(client.search_runs([experiment])) == 2
    assert {path.name for path in tmp_path.iterdir()} <= {"mlflow.db", ".mlflow.db.lock", "mlartifacts", "spool"}


def test_a_kill_among_the_first_migrations_is_nothing_to_the_next_start(made: Path, tmp_path: Path) -> None:
    child = FORK.Process(target=killed_among_the_migrations, args=(tmp_path,))
    child.start()
    child.join(100)
    assert child.exitcode == -signal.SIGKILL
    assert [path.name for path in tmp_path.glob("mlflow.db*")] and not (tmp_path / "mlflow.db").exists()
    config = config_of(tmp_path)
    client, experiment = open_tracking(config.tracking)
    assert client.get_run(start_run(config.tracking, client, experiment, "next", {}).run_id).info.status == "RUNNING"
    assert [path.name for path in tmp_path.glob("mlflow.db*")] == ["mlflow.db"]


def middle_flipped(data: bytes) -> bytes:
    return data[:100] + bytes(len(data) - 100)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: b"no database at all " * 99, "file is not a database"),
        (lambda data: data[: len(data) // 2 // 4096 * 4096], "malformed"),
        (middle_flipped, "malformed"),
    ],
)
def test_a_damaged_file_is_one_line_with_both_cures_and_stays(
    made: Path, tmp_path: Path, damage: object, said: str
) -> None:
    data = damage(made.read_bytes())  # type: ignore[operator]
    (tmp_path / "mlflow.db").write_bytes(data)
    with pytest.raises(UserError, match=r"mlflow\.db: is damaged \(.*or go on with a new one: `mv ") as error:
        open_tracking(config_of(tmp_path).tracking)
    assert said in str(error.value) and "\n" not in str(error.value) and "cannot be reached" not in str(error.value)
    assert (tmp_path / "mlflow.db").read_bytes() == data


def test_another_programs_database_is_not_taken_for_mlflows(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.execute("create table songs (name text)")
    with pytest.raises(UserError, match="it has no tables of MLflow's"):
        prepare(tmp_path)


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as the MLflow before one migration of today's would have left it, with one experiment of the user's."""
    from alembic import command
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import InitialBase, _get_alembic_config, create_sqlalchemy_engine

    path = tmp_path_factory.mktemp("older") / "mlflow.db"
    engine = create_sqlalchemy_engine(f"{SQLITE}{path}")
    InitialBase.metadata.create_all(engine)
    config = _get_alembic_config(f"{SQLITE}{path}")
    revisions = list(ScriptDirectory.from_config(config).walk_revisions())
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revisions[3].revision)
    engine.dispose()
    with closing(sqlite3.connect(path)) as database:
        database.execute(
            "insert into experiments (name, artifact_location, lifecycle_stage) values ('mine', '', 'active')"
        )
        database.commit()
    return path


@pytest.fixture
def old(older: Path, tmp_path: Path) -> Iterator[Path]:
    shutil.copyfile(older, tmp_path / "mlflow.db")
    yield tmp_path


def test_an_older_file_is_upgraded_beside_its_place_and_kept(old: Path, older: Path) -> None:
    client, _ = open_tracking(config_of(old).tracking)
    assert client.get_experiment_by_name("mine") is not None
    (before,) = old.glob("mlflow.db.before-*")
    assert before.read_bytes() == older.read_bytes()


def test_an_older_file_that_is_open_elsewhere_is_left_alone(old: Path, older: Path) -> None:
    script = "import sys, time; file = open(sys.argv[1], 'r+b'); print(flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", script, str(old / "mlflow.db")], stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline()
    try:
        with pytest.raises(UserError, match=rf"process {holder.pid} .* has it open; end that"):
            prepare(old)
    finally:
        holder.kill()
        holder.wait()
    assert (old / "mlflow.db").read_bytes() == older.read_bytes()


def test_an_upgrade_that_fails_leaves_the_file_as_it_was(old: Path) -> None:
    """As a migration that was stopped half-way by an earlier version of this program leaves it."""
    with closing(sqlite3.connect(old / "mlflow.db")) as database:
        database.execute("update alembic_version set version_num = 'nobody-knows'")
        database.commit()
    data = (old / "mlflow.db").read_bytes()
    with pytest.raises(UserError, match=r"is damaged \(its schema nobody-knows cannot be upgraded: "):
        prepare(old)
    assert (old / "mlflow.db").read_bytes() == data and os.listdir(old).count("mlflow.db") == 1
