"""One boundary for errors: each family's real errors are one line with a cure; what no family has is called our fault."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.errors import ConfigError, UserError
from components.pipeline.failures import FAULT, MEND, Fault, boundary, classify, report

DEAD = "http://127.0.0.1:9"
KEYS = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}


def raised(call: Callable[[], Any]) -> BaseException:
    """What a call really raises."""
    with pytest.raises(BaseException) as caught:
        call()
    return caught.value


def line(call: Callable[[], Any]) -> str:
    """The one line that a call's error becomes."""
    lines = classify(raised(call))
    assert lines is not None and len(lines) == 1 and "\n" not in lines[0] and "Traceback" not in lines[0], lines
    return lines[0]


# S3


def test_a_store_that_is_away_names_its_address() -> None:
    import boto3
    from botocore.config import Config

    quick = Config(connect_timeout=1, retries={"max_attempts": 0})
    client = boto3.client("s3", endpoint_url=DEAD, config=quick, **KEYS)
    said = line(client.list_buckets)
    assert DEAD in said and "AWS_ENDPOINT_URL" in said


def test_missing_credentials_are_named_by_their_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    client = boto3.session.Session(region_name="us-east-1").client("s3", endpoint_url=DEAD)
    assert "AWS_ACCESS_KEY_ID" in line(client.list_buckets)


def test_a_refusal_of_s3_is_told_as_such_behind_an_fsspec_error(s3_endpoint: Any) -> None:
    import s3fs

    fs = s3fs.S3FileSystem(
        key="a", secret="b", client_kwargs={"endpoint_url": s3_endpoint.url}, skip_instance_cache=True
    )
    error = raised(lambda: fs.pipe_file("no-such-bucket/key", b"x"))
    assert isinstance(error, OSError)
    (said,) = classify(error) or ()
    assert "NoSuchBucket" in said and "make the bucket" in said and "no-such-bucket" in said


def test_an_http_server_that_is_away_is_named() -> None:
    import aiohttp
    import httpx

    async def ask() -> None:
        async with aiohttp.ClientSession() as session, session.get(f"{DEAD}/x"):
            pass

    assert "127.0.0.1:9" in line(lambda: asyncio.run(ask()))
    assert f"{DEAD}/y cannot be reached" in line(lambda: httpx.get(f"{DEAD}/y"))


# MLflow and its database


def test_an_mlflow_server_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    said = line(MlflowClient(DEAD).search_experiments)
    assert said.startswith("MLflow: ") and "tracking.uri" in said and "'127.0.0.1'" in said


def test_a_damaged_database_says_which_file_to_move_away(tmp_path: Path) -> None:
    from sqlalchemy import create_engine, text

    (tmp_path / "mlflow.db").write_bytes(b"this is no database" * 100)
    engine = create_engine(f"sqlite:///{tmp_path}/mlflow.db")
    said = line(lambda: engine.connect().execute(text("select * from runs")))
    assert "file is not a database" in said and "move the damaged .db file" in said and "select" not in said


def test_a_locked_database(tmp_path: Path) -> None:
    holder = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    holder.execute("create table t (a)")
    holder.execute("begin exclusive")
    other = sqlite3.connect(tmp_path / "x.db", timeout=0)
    assert "another process writes to it" in line(lambda: other.execute("insert into t values (1)"))


# Prefect


def test_a_prefect_run_that_is_not_there(prefect_api: str) -> None:
    import uuid

    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        said = line(lambda: client.read_flow_run(uuid.uuid4()))
    assert said.startswith("Prefect: ") and "PREFECT_API_URL" in said


# Ray


def test_errors_of_ray_tasks_are_those_of_their_causes(ray_cluster: None) -> None:
    import ray

    @ray.remote(max_retries=0)
    def fail(kind: str) -> None:
        if kind == "user":
            raise ConfigError("train.lr: too high")
        if kind == "os":
            Path("/nonexistent/file").read_text()
        raise TypeError("our own")

    assert line(lambda: ray.get(fail.remote("user"))) == "train.lr: too high"
    assert line(lambda: ray.get(fail.remote("os"))).startswith("/nonexistent/file: No such file or directory; ")
    assert classify(raised(lambda: ray.get(fail.remote("fault")))) is None


def test_an_actor_that_died_is_rays(ray_cluster: None) -> None:
    import os

    import ray

    @ray.remote(max_restarts=0)
    class Dies:
        def now(self) -> None:
            os._exit(1)

    said = line(lambda: ray.get(Dies.remote().now.remote()))
    assert (
        said.startswith("Ray failed or lost a process: ")
        and "run the same command again: finished work is reused" in said
    )


def test_the_errors_of_a_training_are_those_of_its_workers() -> None:
    from ray.train import ControllerError, WorkerGroupError

    assert classify(WorkerGroupError("…", {0: TypeError("x"), 1: UserError("no room")})) == ("no room",)
    assert classify(WorkerGroupError("…", {0: TypeError("x")})) is None
    assert classify(ControllerError(MemoryError()))[0].startswith("no memory is left; ")  # type: ignore[index]


def test_a_cluster_that_is_away_is_rays() -> None:
    from ray.job_submission import JobSubmissionClient

    assert "run the same command again: finished work is reused" in line(lambda: JobSubmissionClient(DEAD))


# The operating system


@pytest.mark.parametrize(
    ("path", "reason", "cure"),
    [
        ("/nonexistent/a", "No such file or directory", "bring it back"),
        ("/dev/null/a", "Not a directory", "a part of its path is a file"),
        ("/tmp", "Is a directory", "name a file"),
        (f"/tmp/{'n' * 300}", "File name too long", "shorten it"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_cure(path: str, reason: str, cure: str) -> None:
    said = line(lambda: Path(path).write_text(""))
    assert said.startswith(f"{path}: {reason}; ") and cure in said


def test_a_port_that_is_taken() -> None:
    import socket

    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        assert "the port is taken" in line(lambda: other.bind(one.getsockname()))


def test_a_package_that_is_missing_is_named() -> None:
    assert "the package no_such_package is not installed" in line(lambda: __import__("no_such_package"))
    assert classify(raised(lambda: __import__("components.no_such_module"))) is None


# Groups, causes, faults


def test_a_group_is_told_member_by_member_and_is_a_fault_with_one_in_it() -> None:
    users = [UserError("one"), ConfigError("two"), UserError("one")]
    assert classify(ExceptionGroup("g", users)) == ("one", "two")
    assert classify(ExceptionGroup("g", [*users, KeyError("x")])) is None


def test_what_an_error_was_raised_from_counts_but_not_what_was_being_handled() -> None:
    def meant() -> None:
        try:
            Path("/nonexistent/a").read_text()
        except OSError as error:
            raise RuntimeError("reading") from error

    def slip() -> None:
        try:
            Path("/nonexistent/a").read_text()
        except OSError:
            {}["typo"]  # type: ignore[index]

    assert "/nonexistent/a" in line(meant)
    assert classify(raised(slip)) is None


def test_a_fault_says_so_and_names_the_file_of_its_traceback(tmp_path: Path) -> None:
    error = raised(lambda: {}["http://me:secret@host"])
    failure = report(error, tmp_path)
    (file,) = (tmp_path / "logs").glob("fault-*.log")
    assert failure.status == FAULT
    assert failure.lines[0].startswith("this is a fault of plm, not of your input (KeyError: ")
    assert failure.lines[0].endswith(f"which is in {file}") and "secret" not in failure.lines[0]
    kept = file.read_text()
    assert "Traceback" in kept and "test_failures.py" in kept and "secret" not in kept


def test_a_flow_raises_one_line_whatever_happened_inside(tmp_path: Path) -> None:
    def body(error: Exception) -> None:
        with boundary(tmp_path):
            raise error

    assert str(raised(lambda: body(UserError("as it is")))) == "as it is"
    told = raised(lambda: body(PermissionError(13, "Permission denied", "/data")))
    assert isinstance(told, UserError) and str(told).startswith("/data: Permission denied; ")
    fault = raised(lambda: body(IndexError("x")))
    assert isinstance(fault, Fault) and report(fault, tmp_path).status == FAULT
    assert report(UserError("x"), tmp_path).status == MEND
    assert len(list((tmp_path / "logs").glob("*"))) == 1


@pytest.mark.case("R14")
def test_others_texts_cannot_command_a_terminal() -> None:
    assert classify(UserError("file \x1b]52;c;aGk=\x07.png")) == ("file \\x1b]52;c;aGk=\\x07.png",)
