"""The whole chain as a user runs it: a deployment on a real Prefect server and worker, once for all tests that look at it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from components.pipeline.config import PipelineConfig
from components.pipeline.config_loading import load_config

SMOKE = "configs/smoke.yaml"
BIN = Path(sys.executable).parent
PLM = str(BIN / "plm")


@dataclass(frozen=True)
class Workplace:
    """A folder with its own storage root and stores, and the overrides that point a config at it."""

    root: Path
    repository: Path

    @property
    def overrides(self) -> list[str]:
        return [
            f"storage.root={self.root}/runs",
            f"storage.cache_dir={self.root}/cache",
            f"tracking.state_dir={self.root}/state",
        ]

    @property
    def config(self) -> PipelineConfig:
        return load_config(SMOKE, self.overrides)

    def plm(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run `plm` in the repository and wait for it."""
        return subprocess.run(
            [PLM, *arguments],
            cwd=self.repository,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=900,
        )

    def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start `plm` as a shell would: Ctrl-C reaches the whole group."""
        return subprocess.Popen(
            [PLM, *arguments],
            cwd=self.repository,
            env={**os.environ, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
        )

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads((self.root / "runs" / "smoke" / "summary.json").read_text())


@pytest.fixture
def workplace(tmp_path: Path, repository: Path) -> Workplace:
    return Workplace(tmp_path, repository)


@pytest.fixture(scope="session")
def prefect_deployed(prefect_api: str, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The work pool and `prefect deploy --all`, as infra/README.md says."""
    prefect = str(BIN / "prefect")
    commands = [
        [prefect, "work-pool", "create", "--type", "process", "plm-local"],
        [prefect, "--no-prompt", "deploy", "--all"],
    ]
    with open(tmp_path_factory.mktemp("deploy") / "deploy.log", "w") as log:
        for command in commands:
            subprocess.run(command, cwd=repository, check=True, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    return prefect_api


@pytest.fixture(scope="session")
def prefect_worker(
    prefect_deployed: str, s3_endpoint: object, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A process worker for what is deployed. Its flows find the S3 endpoint, as it does."""
    log = open(tmp_path_factory.mktemp("worker") / "worker.log", "w")  # noqa: SIM115 - open as long as the worker runs
    prefect = str(BIN / "prefect")
    environment = {**os.environ, "PREFECT_WORKER_QUERY_SECONDS": "2"}
    command = [prefect, "worker", "start", "--pool", "plm-local"]
    worker = subprocess.Popen(command, cwd=repository, env=environment, stdout=log, stderr=log, start_new_session=True)
    yield prefect_deployed
    worker.send_signal(signal.SIGTERM)
    try:
        worker.wait(20)
    except subprocess.TimeoutExpired:
        worker.kill()
    log.close()


@dataclass(frozen=True)
class Prefect:
    """The server's REST API, and the CLI that users type."""

    api: str
    repository: Path

    def deploy_run(self, overrides: Mapping[str, Any] | Sequence[str]) -> str:
        """`prefect deployment run finetune-flow/local` of the smoke config; returns the flow run's id."""
        parameters = ["--param", f'config="{SMOKE}"', "--param", f"overrides={json.dumps(overrides)}"]
        command = [str(BIN / "prefect"), "deployment", "run", "finetune-flow/local", *parameters]
        ran = subprocess.run(command, cwd=self.repository, check=True, capture_output=True, text=True)
        (line,) = [line for line in ran.stdout.splitlines() if "UUID:" in line]
        return line.split("UUID:")[1].strip()

    def get(self, path: str) -> Any:
        return self._ask("GET", path)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._ask("POST", path, json=body)

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        from tests.prefect_page import page_session

        page = page_session(self.api)
        try:
            return page.request(method, path, **options).raise_for_status().json()
        finally:
            page.close()

    def state(self, flow_run: str) -> str:
        return self.get(f"flow_runs/{flow_run}")["state_name"]

    def wait(self, flow_run: str, timeout_s: float, *names: str) -> str:
        """Wait until the flow run is in one of the named states; returns the state's name."""
        return wait_for(lambda: (s := self.state(flow_run)) in names and s, timeout_s, f"flow run in {names}")

    def tasks(self, flow_run: str) -> dict[str, dict[str, Any]]:
        rows = self.post("task_runs/filter", {"flow_runs": {"id": {"any_": [flow_run]}}})
        return {row["name"]: row for row in rows}


@pytest.fixture(scope="session")
def prefect(prefect_worker: str, repository: Path) -> Prefect:
    return Prefect(prefect_worker, repository)


@pytest.fixture(scope="session")
def smoke(prefect: Prefect, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workplace, str]:
    """The smoke config run once through the deployment; the flow run's id."""
    place = Workplace(tmp_path_factory.mktemp("smoke"), repository)
    flow_run = prefect.deploy_run(place.overrides)
    state = prefect.wait(flow_run, 600, "Completed", "Failed", "Crashed", "Cancelled")
    assert state == "Completed", prefect.get(f"flow_runs/{flow_run}")["state"]["message"]
    return place, flow_run


def wait_for(check: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """Poll until `check` returns something true, and return it."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := check():
            return found
        time.sleep(0.5)
    raise AssertionError(f"not within {timeout_s:.0f} s: {what}")


def processes_of(marker: str) -> list[str]:
    """Command lines of live processes that carry a text in their command line or environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            text = " ".join([*process.cmdline(), *(f"{k}={v}" for k, v in process.environ().items())])
            if marker in text:
                found.append(" ".join(process.cmdline())[:200])
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found
