"""Kills and Ctrl-C at every step: the next start finishes, reuses what was whole, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import httpx
import psutil
import pytest

from components.pipeline.steps import STEPS
from components.tracking.runs import tracking_client
from flows.servers.prefect_login import local_login
from tests.ports import free_port
from tests.system.conftest import BIN, Prefect, Workplace, processes_of, wait_for

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("kills"), repository)


class Running:
    """A `plm finetune` in progress whose output is read as it comes."""

    def __init__(self, place: Workplace, *overrides: str) -> None:
        self.lines: list[str] = []
        own_server = {"PREFECT_API_URL": ""}
        environment = {k: v for k, v in {**os.environ, **own_server}.items() if v or k != "PREFECT_API_URL"}
        environment["PREFECT_HOME"] = str(place.root / "state" / "prefect")
        environment["PREFECT_API_DATABASE_CONNECTION_URL"] = f"sqlite+aiosqlite:///{place.root}/state/prefect.db"
        self.process: subprocess.Popen[str] = subprocess.Popen(
            [
                str(BIN / "plm"),
                "finetune",
                "configs/smoke.yaml",
                *place.overrides,
                *overrides,
            ],
            cwd=place.repository,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=_default_interrupt,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(iter(self.process.stdout.readline, ""))

    def says(self, *words: str) -> bool:
        return any(all(word in line for word in words) for line in self.lines)

    def wait_to_say(self, *words: str, timeout_s: float = 300) -> None:
        deadline = time.monotonic() + timeout_s
        while not self.says(*words) and self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert self.says(*words), "".join(self.lines[-30:])

    def finish(self, timeout_s: float = 500) -> str:
        self.process.wait(timeout_s)
        assert self.process.returncode == 0, "".join(self.lines[-30:])
        return "".join(self.lines)


def _default_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def nothing_left(place: Workplace) -> None:
    wait_for(lambda: not processes_of(str(place.root)), 60, f"no process left: {processes_of(str(place.root))}")


@pytest.mark.parametrize("step", list(STEPS))
def test_a_kill_during_each_step_is_made_good_by_the_next_start(place: Workplace, step: str) -> None:
    """The steps before the killed one are reused: the runs of one module share a storage root and go on from each other."""
    run = Running(place, "--refresh", step)
    run.wait_to_say(f" {step} ", "runs:")
    time.sleep(0.0 if step in ("ingest", "convert", "compare", "register") else 3.0)
    os.killpg(run.process.pid, signal.SIGKILL)
    run.process.wait()
    nothing_left(place)
    if step == list(STEPS)[-1]:
        again = Running(place)
        again.finish()
        assert place.summary["registered_model_version"]
        client = tracking_client(place.config.tracking)
        experiment = client.get_experiment_by_name("plm-pipeline").experiment_id
        assert {run.info.status for run in client.search_runs([experiment])} == {"FINISHED", "KILLED"}


def test_a_killed_train_worker_does_not_stop_the_run(tmp_path: Path, repository: Path) -> None:
    place = Workplace(tmp_path, repository)
    run = Running(place, "train.steps=120", "train.checkpoint_every=10")
    run.wait_to_say("train", "step 1/120", timeout_s=400)
    train_workers(run.process.pid)[0].kill()
    run.finish()
    train = tracking_client(place.config.tracking)
    query = "tags.`plm.step` = 'train'"
    experiment = train.get_experiment_by_name("plm-pipeline").experiment_id
    (child,) = train.search_runs([experiment], query)
    points = train.get_metric_history(child.info.run_id, "train/loss")
    assert max(point.step for point in points) == 120


def train_workers(driver: int) -> list[psutil.Process]:
    """Ray Train's workers below one driver; other Rays of the machine are not ours."""
    return [p for p in psutil.Process(driver).children(recursive=True) if "RayTrainWorker" in " ".join(_command(p))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return []


@pytest.mark.parametrize("step", ["preprocess", "train", "evaluate_base"])
def test_ctrl_c_leaves_no_process_and_says_so_everywhere(tmp_path: Path, repository: Path, step: str) -> None:
    place = Workplace(tmp_path, repository)
    run = Running(place)
    run.wait_to_say(f" {step} ", "runs:")
    time.sleep(8.0)
    os.killpg(run.process.pid, signal.SIGINT)
    assert run.process.wait(90) == 130
    nothing_left(place)
    client = tracking_client(place.config.tracking)
    experiment = client.get_experiment_by_name("plm-pipeline").experiment_id
    statuses = {r.info.run_name: r.info.status for r in client.search_runs([experiment])}
    assert statuses["smoke"] == statuses[step] == "KILLED"
    assert prefect_states(place)[0] in ("Crashed", "Cancelled")


def prefect_states(place: Workplace) -> list[Any]:
    import sqlite3

    with sqlite3.connect(place.root / "state" / "prefect.db") as database:
        return [row[0] for row in database.execute("select state_name from flow_run order by created desc")]


@pytest.mark.case("E11b")
def test_cancelling_a_flow_run_leaves_a_checkpoint_and_stops_its_local_ray(
    tmp_path: Path, repository: Path, prefect: Prefect
) -> None:
    place = Workplace(tmp_path, repository)
    flow_run = prefect.deploy_run([*place.overrides, "train.steps=100000", "train.checkpoint_every=100000"])
    wait_for(lambda: "train" in prefect.tasks(flow_run), 600, "the train task")
    trained = place.root / "runs" / "resume" / "train"
    wait_for(lambda: any(file.stat().st_size for file in trained.glob("*/metrics.jsonl")), 300, "the first steps")
    assert not list(trained.glob("*/checkpoints/step-*"))
    subprocess.run([str(BIN / "prefect"), "flow-run", "cancel", flow_run], cwd=repository, check=True)
    wait_for(lambda: list(trained.glob("*/checkpoints/step-*/.metadata")), 30, "the last checkpoint, within the grace")
    assert prefect.wait(flow_run, 90, "Cancelled", "Crashed", "Failed") == "Cancelled"
    wait_for(lambda: not processes_of(flow_run), 60, f"its processes are gone: {processes_of(flow_run)}")
    client = tracking_client(place.config.tracking)
    experiment = client.get_experiment_by_name("plm-pipeline").experiment_id
    statuses = {r.info.run_name: r.info.status for r in client.search_runs([experiment])}
    assert statuses["smoke"] == statuses["train"] == "KILLED"


def test_the_pages_answer_and_end_with_ctrl_c(tmp_path: Path, repository: Path) -> None:
    mlflow, prefect_port = str(free_port()), str(free_port())
    command = ["ui", "configs/smoke.yaml", f"tracking.state_dir={tmp_path}", "--mlflow-port", mlflow]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    pages = subprocess.Popen(
        [str(BIN / "plm"), *command, "--prefect-port", prefect_port],
        cwd=repository,
        env=environment,
        start_new_session=True,
        preexec_fn=_default_interrupt,
        stdout=subprocess.PIPE,
        text=True,
    )
    for port in (mlflow, prefect_port):
        wait_for(lambda port=port: _answers(f"http://127.0.0.1:{port}"), 180, f"the page on {port}")
    foreign = {"Host": "evil.example"}  # a page whose name was pointed here
    assert httpx.post(f"http://127.0.0.1:{prefect_port}/api/flows/filter", json={}, headers=foreign).status_code == 400
    search = f"http://127.0.0.1:{mlflow}/api/2.0/mlflow/experiments/search"
    asked = {"max_results": 1}
    assert httpx.post(search, json=asked).status_code == 200
    assert httpx.post(search, json=asked, headers=foreign).status_code == 403
    assert httpx.post(search, json=asked, headers={"Origin": "http://evil.example"}).status_code == 403
    os.killpg(pages.pid, signal.SIGINT)
    assert f"asks once for {local_login(tmp_path)}" in pages.communicate()[0]
    assert pages.wait(60) == 130
    wait_for(lambda: not processes_of(str(tmp_path)), 30, "no process left")


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False
