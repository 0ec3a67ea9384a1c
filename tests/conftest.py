"""Fixtures shared by the whole suite: one Ray, one Prefect server, one S3 endpoint, each started on first use."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flows.servers.environment import QUIET, RAY_ON_LOOPBACK

if TYPE_CHECKING:
    from flows.servers.prefect_server import PrefectServer

REPOSITORY = Path(__file__).resolve().parent.parent
E2E_SECONDS = 900

# Before anything imports Ray, MLflow or Prefect.
for name, value in {**QUIET, **RAY_ON_LOOPBACK, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}.items():
    os.environ.setdefault(name, value)

pytest_plugins = ["tests.s3_endpoint", "tests.mlflow_server"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--weights", metavar="DIR", help="published weights, see tests/plm_model/test_published_answers.py"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items if config.pluginmanager.hasplugin("timeout") else ():
        if item.get_closest_marker("e2e") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(E2E_SECONDS))


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """What `main` sets in this process for its own end does not outlive a test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One local Ray for every test that needs one; four logical CPUs, so that workers and data tasks never starve."""
    from components.pipeline.config import PipelineConfig
    from components.pipeline.ray_session import ray_session

    with ray_session(PipelineConfig.model_validate({"ray": {"num_cpus": 4}})):
        yield


@pytest.fixture(scope="session")
def own_prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """One real Prefect server on its own SQLite; `PREFECT_API_URL` names it for this process and its children."""
    from components.pipeline.config import PipelineConfig
    from flows.servers.environment import prepare_environment
    from flows.servers.prefect_server import PrefectServer

    state = tmp_path_factory.mktemp("prefect")
    os.environ["PREFECT_HOME"] = str(state / "prefect")
    os.environ["PREFECT_API_DATABASE_CONNECTION_URL"] = f"sqlite+aiosqlite:///{state / 'prefect.db'}"
    prepare_environment(PipelineConfig.model_validate({"tracking": {"state_dir": str(state)}}))
    server = PrefectServer(state)
    server.start()
    server.wait()
    yield server
    server.close()


@pytest.fixture(scope="session")
def prefect_api(own_prefect_server: PrefectServer) -> str:
    """The address of that server."""
    return own_prefect_server.api_url


@pytest.fixture
def s3_bucket(s3_endpoint: object) -> str:
    """A fresh bucket on the session's S3 endpoint."""
    import uuid

    import boto3

    name = f"bucket-{uuid.uuid4().hex[:10]}"
    boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"]).create_bucket(Bucket=name)
    return name
