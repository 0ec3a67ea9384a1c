"""finetune-flow on a Ray cluster with storage in S3: jobs with deterministic ids, attached to, stopped with the flow."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from components.errors import UserError
from components.pipeline.config import PipelineConfig
from components.pipeline.config_overrides import config_of
from components.pipeline.ray_jobs import StepJob, job_client, run_job, step_entrypoint, stop_jobs_of_flow_run
from components.tracking.runs import tracking_client
from flows.run.recovery import close_dead_runs
from tests.ports import free_port
from tests.system.conftest import BIN, Prefect, Workplace, wait_for

whole_flow = pytest.mark.e2e  # minutes, nearly all of them imports in the processes of five jobs


@pytest.fixture(scope="module")
def address(s3_endpoint: Any) -> Iterator[str]:
    """A real Ray head with its dashboard on loopback, in processes of its own."""
    port, dashboard = free_port(), free_port()
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    command = [
        *(str(BIN / "ray"), "start", "--head", "--block", "--num-cpus", "4", "--disable-usage-stats"),
        *("--node-ip-address", "127.0.0.1", "--port", str(port)),
        *("--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard)),
        # The suite's own local Ray holds the default ports.
        *("--dashboard-agent-listen-port", str(free_port()), "--dashboard-agent-grpc-port", str(free_port())),
        *("--runtime-env-agent-port", str(free_port()), "--metrics-export-port", str(free_port())),
    ]
    head = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    url = f"http://127.0.0.1:{dashboard}"
    wait_for(lambda: _answers(url), 120, "the Ray dashboard")
    yield url
    head.send_signal(signal.SIGTERM)
    try:
        head.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(head.pid, signal.SIGKILL)


def _answers(url: str) -> bool:
    try:
        return bool(job_client(url))
    except UserError:
        return False


@pytest.fixture(scope="module")
def bucket(s3_endpoint: Any) -> str:
    boto3.client("s3").create_bucket(Bucket="cluster-runs")
    return "cluster-runs"


@pytest.fixture(scope="module")
def parameters(address: str, bucket: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    place = tmp_path_factory.mktemp("cluster")
    return {
        "storage": {"root": f"s3://{bucket}/runs", "cache_dir": str(place / "cache")},
        "tracking": {"state_dir": str(place / "state")},
        "ray": {"address": address},
    }


@pytest.fixture(scope="module")
def on_cluster(parameters: dict[str, Any], prefect: Prefect) -> str:
    """The smoke flow, heavy steps as Ray jobs; its flow run's id."""
    flow_run = prefect.deploy_run(parameters)
    state = prefect.wait(flow_run, 800, "Completed", "Failed", "Crashed", "Cancelled")
    assert state == "Completed", prefect.get(f"flow_runs/{flow_run}")["state"]["message"]
    return flow_run


@pytest.fixture(scope="module")
def summary(on_cluster: str, bucket: str) -> dict[str, Any]:
    return json.loads(boto3.client("s3").get_object(Bucket=bucket, Key="runs/smoke/summary.json")["Body"].read())


@whole_flow
def test_heavy_steps_were_jobs_with_deterministic_ids(address: str, on_cluster: str) -> None:
    jobs = {job.submission_id: job for job in job_client(address).list_jobs()}
    for step in ("preprocess", "train", "consolidate", "evaluate_base", "evaluate"):
        job = jobs[f"{on_cluster}-{step}-a1"]
        assert job.status.value == "SUCCEEDED" and job.metadata["prefect_flow_run_id"] == on_cluster
        assert job.metadata["mlflow_run_id"] and "test" not in json.dumps(job.runtime_env)


@whole_flow
def test_the_mlflow_run_names_its_job(parameters: dict[str, Any], summary: dict[str, Any], on_cluster: str) -> None:
    client = tracking_client(config_of("configs/smoke.yaml", parameters).tracking)
    parent = client.get_run(summary["mlflow_run_id"])
    query = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}' and tags.`plm.step` = 'train'"
    (train,) = client.search_runs([parent.info.experiment_id], query)
    assert train.data.tags["ray.submission_id"] == f"{on_cluster}-train-a1"
    assert train.data.tags["ray.dashboard_url"].startswith("http://127.0.0.1")
    assert client.get_metric_history(train.info.run_id, "train/loss")[-1].step == 20


@whole_flow
def test_the_results_are_those_of_the_local_run(summary: dict[str, Any], smoke: tuple[Workplace, str]) -> None:
    local = smoke[0].summary
    assert {k: summary[k] for k in ("score_before", "score_after", "heldout")} == {
        k: local[k] for k in ("score_before", "score_after", "heldout")
    }


@whole_flow
def test_nothing_but_caches_and_stores_is_local(parameters: dict[str, Any], on_cluster: str) -> None:
    place = Path(parameters["storage"]["cache_dir"]).parent
    assert {path.name for path in place.iterdir()} <= {"cache", "state"}


@whole_flow
def test_a_step_by_hand_finds_its_artifact(
    address: str, parameters: dict[str, Any], on_cluster: str, repository: Path
) -> None:
    """`ray job submit -- plm train …` as the README has it: the same settings lead to the same artifacts."""
    settings = [
        f"storage.root={parameters['storage']['root']}",
        f"tracking.state_dir={parameters['tracking']['state_dir']}",
    ]
    submit = [str(BIN / "ray"), "job", "submit", "--address", address, "--working-dir", "."]
    command = [*submit, "--", "plm", "train", "configs/smoke.yaml", *settings, "--json"]
    ran = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0 and '"step": "train"' in ran.stdout, ran.stdout[-2000:]
    assert "starting" not in ran.stdout, "nothing was trained again"


@whole_flow
def test_a_cancelled_flow_stops_its_job(
    address: str, parameters: dict[str, Any], prefect: Prefect, on_cluster: str, repository: Path
) -> None:
    flow_run = prefect.deploy_run({**parameters, "train": {"steps": 100000}})
    client = job_client(address)
    job_id = f"{flow_run}-train-a1"

    def training() -> bool:
        found = [job for job in client.list_jobs() if job.submission_id == job_id]
        return bool(found) and found[0].status.value == "RUNNING"

    wait_for(training, 240, "the train job runs")
    subprocess.run([str(BIN / "prefect"), "flow-run", "cancel", flow_run], cwd=repository, check=True)
    assert prefect.wait(flow_run, 90, "Cancelled", "Crashed", "Failed") == "Cancelled"
    wait_for(lambda: client.get_job_status(job_id).is_terminal(), 40, "the job ends")
    assert client.get_job_status(job_id).value == "STOPPED"
    mlflow = tracking_client(config_of("configs/smoke.yaml", parameters).tracking)
    runs = mlflow.search_runs(
        [mlflow.get_experiment_by_name("plm-pipeline").experiment_id], f"tags.`prefect.flow_run_id` = '{flow_run}'"
    )
    statuses = {run.info.run_name.split()[0]: run.info.status for run in runs}  # `smoke steps=100000`
    assert statuses["train"] == statuses["smoke"] == "KILLED"


def job_of(command: str, flow_run: str) -> StepJob:
    return StepJob("train", flow_run, command, {"prefect_flow_run_id": flow_run})


def test_a_retried_step_attaches_to_the_job_it_has(address: str) -> None:
    client = job_client(address)
    seen: list[str] = []
    job = job_of(f"{sys.executable} -c 'import time; time.sleep(6)'", "flow-attach")
    first = run_job(client, job, None, 0.5, seen.append)
    again = run_job(client, job, None, 0.5, seen.append)
    assert first == again == "flow-attach-train-a1"


def test_a_failed_job_ends_in_its_own_words_and_the_next_try_is_a_new_one(address: str) -> None:
    client = job_client(address)
    failing = job_of("""bash -c 'echo "error: the disk is full"; exit 2'""", "flow-fails")
    for attempt in (1, 2):
        with pytest.raises(UserError, match=f"flow-fails-train-a{attempt} ended as FAILED: error: the disk is full"):
            run_job(client, failing, None, 0.5, lambda _: None)


def test_an_interrupted_wait_stops_the_job(address: str) -> None:
    client = job_client(address)

    def interrupt(submission_id: str) -> None:
        if client.get_job_status(submission_id).value == "RUNNING":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(client, job_of("sleep 300", "flow-interrupt"), None, 0.5, interrupt)
    assert client.get_job_status("flow-interrupt-train-a1").value == "STOPPED"
    assert stop_jobs_of_flow_run(client, "flow-interrupt") == []


def test_the_job_of_a_killed_flow_is_stopped_by_the_next_start(address: str, tmp_path: Path) -> None:
    client = job_client(address)
    for flow_run in ("flow-killed", "flow-mine"):
        job = job_of("sleep 300", flow_run)
        client.submit_job(entrypoint=job.entrypoint, submission_id=job.submission_id(1), metadata=dict(job.metadata))
    config = PipelineConfig.model_validate({"tracking": {"state_dir": str(tmp_path)}, "ray": {"address": address}})
    dead = {"pid": 1, "started": 1.0, "host": socket.gethostname(), "ray_address": address}
    (tmp_path / "live").mkdir()
    for flow_run in ("flow-killed", "flow-mine"):
        (tmp_path / "live" / f"{flow_run}.json").write_text(json.dumps({**dead, "prefect_flow_run_id": flow_run}))
    close_dead_runs(config, in_prefect=False, flow_run="flow-mine")
    assert client.get_job_status("flow-killed-train-a1").value == "STOPPED"
    assert not client.get_job_status("flow-mine-train-a1").is_terminal(), "a retried flow run attaches to its job"
    assert stop_jobs_of_flow_run(client, "flow-mine") == ["flow-mine-train-a1"]


def test_an_address_without_a_cluster_is_one_line() -> None:
    with pytest.raises(UserError, match=r"ray.address http://127.0.0.1:9: no Ray dashboard answers") as error:
        job_client("http://127.0.0.1:9")
    assert "\n" not in str(error.value)


def test_the_entry_point_is_a_plm_command() -> None:
    entrypoint = step_entrypoint("evaluate_base", "s3://b/c.yaml", "--refresh")
    assert entrypoint == "plm evaluate-base s3://b/c.yaml --refresh"


def documented(repository: Path, *starts: str) -> list[str]:
    """The commands of infra/README.md that start so, without their comments, in that order."""
    lines = [line.split("  #")[0].strip() for line in (repository / "infra" / "README.md").read_text().splitlines()]
    return [next(line for line in lines if line.startswith(start)) for start in starts]


@pytest.mark.case("E19c")
@pytest.mark.e2e  # a second Ray head beside the suite's
def test_a_job_is_submitted_to_a_plain_head_with_the_commands_of_the_docs(tmp_path: Path, repository: Path) -> None:
    """On one machine with a home of its own; `scp` copies within it, ports are free ones, and the job is `--version`."""
    make, start, copy, mode, submit = documented(
        repository, "test -f ~/.ray", "ray start --head", "scp HEAD:", "export RAY_AUTH_MODE", "ray job submit"
    )
    port, dashboard = free_port(), free_port()
    ports = f"--port {port} --dashboard-port {dashboard} --node-ip-address 127.0.0.1 --dashboard-agent-grpc-port {free_port()}"
    ports += f" --dashboard-agent-listen-port {free_port()} --runtime-env-agent-port {free_port()}"
    ports += f" --metrics-export-port {free_port()} --block"
    home, away = tmp_path / "head", tmp_path / "away"
    (away / ".ray").mkdir(parents=True)
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"PATH": f"{BIN}:{os.environ['PATH']}", "RAY_USAGE_STATS_ENABLED": "0"}
    shell: dict[str, Any] = {"shell": True, "executable": "/bin/bash", "cwd": repository, "text": True}
    subprocess.run(make, check=True, env={**environment, "HOME": str(home)}, **shell)
    assert (home / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600
    head = subprocess.Popen(
        f"exec {start} {ports}",
        env={**environment, "HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        **shell,
    )
    address = f"http://127.0.0.1:{dashboard}"
    job = submit.split(" -- ")[0].replace("http://HEAD:8265", address) + " -- plm --version"
    copied = copy.replace("scp HEAD:", f"cp {home}/")
    try:
        wait_for(lambda: _listens(dashboard), 300, "the dashboard")
        without = subprocess.run(job, env={**environment, "HOME": str(away)}, capture_output=True, timeout=300, **shell)
        assert without.returncode != 0 and "authentication token" in without.stdout + without.stderr
        ran = subprocess.run(
            f"{copied} && {mode} && {job}",
            env={**environment, "HOME": str(away)},
            capture_output=True,
            timeout=500,
            **shell,
        )
        assert ran.returncode == 0 and "plm " in ran.stdout and "succeeded" in ran.stdout, ran.stdout + ran.stderr
    finally:
        os.killpg(head.pid, signal.SIGKILL)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False
