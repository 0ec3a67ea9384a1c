"""Run a step as a Ray job: deterministic id, attached to when it already runs, stopped when the waiting one is stopped."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from components.artifacts.artifact import Artifact, StepKey
from components.artifacts.files import filesystem, write_bytes, write_json
from components.artifacts.store import ArtifactStore
from components.artifacts.sums import cure
from components.errors import UserError
from components.pipeline.config import PipelineConfig, RayConfig, StorageConfig
from components.pipeline.config_loading import dump_config
from components.pipeline.steps import STEPS
from components.tracking.runs import tracking_uri

JOB_FOLDER = "/tmp/plm"  # on the node that runs the job's driver: caches and spools
STOP_SECONDS = 25.0  # inside the 30 s that Prefect leaves a cancelled flow
JOB_STOP_WAIT_SECONDS = "20"  # Ray's own default of 3 s is too short for a training driver to clean up
MAX_ATTEMPTS = 100
LOOPBACK = ("localhost", "127.0.0.1", "::1")
DASHBOARD_AWAY_SECONDS = 300.0


@dataclass(frozen=True)
class StepJob:
    """One step of one flow run, as a Ray job. `entrypoint` is the same `plm` command that a person would type."""

    step: str
    flow_run_id: str
    entrypoint: str
    metadata: Mapping[str, str]

    def submission_id(self, attempt: int) -> str:
        return f"{self.flow_run_id}-{self.step}-a{attempt}"


def step_entrypoint(step: str, config_uri: str, *options: str) -> str:
    """The `plm` command line of one step; no option may hold a secret, job entry points are readable by all."""
    return " ".join(["plm", step.replace("_", "-"), config_uri, *options])


def check_tracking(config: PipelineConfig) -> None:
    """Refuse a cluster elsewhere together with an SQLite store. Raises UserError.

    An address of this machine may be a port that is forwarded: there the job itself looks for the file.
    """
    host = urlsplit(config.ray.address or "").hostname
    elsewhere = host is not None and host not in (*LOOPBACK, socket.gethostname())
    if elsewhere and tracking_uri(config.tracking).startswith("sqlite:"):
        raise not_on_cluster(config, f"ray.address {config.ray.address}")


def not_on_cluster(config: PipelineConfig, where: str) -> UserError:
    """The error for a tracking store that jobs do not see."""
    return UserError(
        f"{where}: {tracking_uri(config.tracking)} is a file of the machine that starts the flow, so metrics of the jobs would "
        "be lost; set tracking.uri=http://… to an MLflow server that both reach"
    )


def publish_job(
    config: PipelineConfig, store: ArtifactStore, key: StepKey, inputs: Mapping[str, Artifact]
) -> tuple[str, str]:
    """Leave below the storage root what the job needs to know; returns the URIs of its config and of its order.

    The order names the key and the inputs, so that the cluster need not see the source, the weights or the clock that
    they were derived from. Folders of this machine stay out of the config.
    """
    inside = config.model_copy(
        update={
            "storage": StorageConfig(
                root=store.root,
                resume_root=config.storage.resume_root and store.resume_root,  # absolute: the job's folder is another
                cache_dir=f"{JOB_FOLDER}/cache",
            ),
            "tracking": config.tracking.model_copy(
                update={"uri": tracking_uri(config.tracking), "state_dir": JOB_FOLDER}
            ),
            "ray": RayConfig(),
        }
    )
    text = dump_config(inside).encode()
    config_uri = write_bytes(store.uri("configs", f"{hashlib.sha256(text).hexdigest()[:16]}.yaml"), text)
    order = {
        "key": asdict(key),
        "inputs": {name: {"step": artifact.step, "key": artifact.key} for name, artifact in inputs.items()},
    }
    return config_uri, write_json(store.uri("configs", f"{key.step}-{key.digest[:20]}.json"), order)


def read_order(uri: str, store: ArtifactStore, family: str) -> tuple[StepKey, dict[str, Artifact]]:
    """The key and the inputs of a job's order for a model of that family.

    Raises UserError where an input is gone, or the code is not the same.
    """
    fs, path = filesystem(uri)
    order = json.loads(fs.cat_file(path))
    key = StepKey(**order["key"])
    step = STEPS[key.step]
    if changed := _differing(step.code(family), key.code):
        raise UserError(f"{key.step}: this cluster runs other code than the flow: {', '.join(changed)}")
    here = step.versions()
    if changed := _differing(here, key.libraries):
        said = ", ".join(f"{name} {here.get(name, '-')} instead of {key.libraries.get(name, '-')}" for name in changed)
        raise UserError(f"{key.step}: this cluster runs other libraries than the flow: {said}")
    inputs: dict[str, Artifact] = {}
    for name, wanted in order["inputs"].items():
        found = store.look(wanted["step"], wanted["key"])
        if not isinstance(found, Artifact):
            what = f"is damaged: {found}; {cure(wanted['step'])}" if found else f"is not in {store.root}"
            raise UserError(f"{key.step}: input {name} ({wanted['step']} {wanted['key'][:20]}) {what}")
        inputs[name] = found
    return key, inputs


def _differing(here: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    return sorted(name for name in {*here, *there} if here.get(name) != there.get(name))


def job_client(address: str) -> Any:
    """A client that has really spoken to the cluster. Raises UserError in one line when it cannot."""
    token = os.environ.get("RAY_AUTH_TOKEN_PATH") or str(Path.home() / ".ray" / "auth_token")
    if "RAY_AUTH_MODE" not in os.environ and ("RAY_AUTH_TOKEN" in os.environ or Path(token).exists()):
        os.environ["RAY_AUTH_MODE"] = "token"
    from ray.job_submission import JobSubmissionClient

    try:
        client = JobSubmissionClient(address)
        client.list_jobs()
    except Exception as error:  # requests and Ray families: each means the same to the user
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"ray.address {address}: no Ray dashboard answers there ({reason})") from None
    return client


def run_job(
    client: Any, job: StepJob, working_dir: str | None, poll_seconds: float, on_poll: Callable[[str], None]
) -> str:
    """Submit the job, or attach to the one that this flow run already has, and wait for its end.

    Whatever ends the wait early (an error, Ctrl-C, a cancelled flow) stops the job before it is raised again.
    Returns the submission id. Raises UserError with the end of the job's log when the job fails.
    """
    submission_id = _attach_or_submit(client, job, working_dir)
    try:
        status = _wait(client, submission_id, poll_seconds, on_poll)
    except BaseException:
        stop_job(client, submission_id)
        raise
    if status.value != "SUCCEEDED":
        raise UserError(
            f"{job.step}: Ray job {submission_id} ended as {status.value}: {_last_words(client, submission_id)}"
        )
    return submission_id


def stop_job(client: Any, submission_id: str) -> None:
    """Ask a job to stop and wait until it has; never raises, since it runs while something else is on its way out."""
    deadline = time.monotonic() + STOP_SECONDS
    with contextlib.suppress(Exception):
        client.stop_job(submission_id)
    while time.monotonic() < deadline:
        with contextlib.suppress(Exception):
            if client.get_job_status(submission_id).is_terminal():
                return
        time.sleep(0.5)


def _wait(client: Any, submission_id: str, poll_seconds: float, on_poll: Callable[[str], None]) -> Any:
    """Poll until the job has ended; a dashboard that is away for a while does not end the wait."""
    last_answer = time.monotonic()
    while True:
        try:
            status = client.get_job_status(submission_id)
            last_answer = time.monotonic()
        except Exception as error:  # requests and Ray families
            if time.monotonic() - last_answer > DASHBOARD_AWAY_SECONDS:
                raise UserError(f"Ray job {submission_id}: the dashboard stopped answering ({error})") from None
        else:
            if status.is_terminal():
                return status
            on_poll(submission_id)
        time.sleep(poll_seconds)


def stop_jobs_of_flow_run(client: Any, flow_run_id: str) -> list[str]:
    """Stop every live job whose metadata names this flow run; returns their ids."""
    mine = [
        job.submission_id
        for job in client.list_jobs()
        if (job.metadata or {}).get("prefect_flow_run_id") == flow_run_id and not job.status.is_terminal()
    ]
    for submission_id in mine:
        stop_job(client, submission_id)
    return mine


def _attach_or_submit(client: Any, job: StepJob, working_dir: str | None) -> str:
    known = {info.submission_id: info.status for info in client.list_jobs()}
    for attempt in range(1, MAX_ATTEMPTS):
        submission_id = job.submission_id(attempt)
        status = known.get(submission_id)
        if status is None:
            env = {"RAY_JOB_STOP_WAIT_TIME_S": JOB_STOP_WAIT_SECONDS}
            runtime_env: dict[str, Any] = {"env_vars": env, **({"working_dir": working_dir} if working_dir else {})}
            submitted: str = client.submit_job(
                entrypoint=job.entrypoint,
                submission_id=submission_id,
                runtime_env=runtime_env,
                metadata=dict(job.metadata),
            )
            return submitted
        if not status.is_terminal() or status.value == "SUCCEEDED":
            return submission_id
    raise UserError(
        f"{job.step}: {MAX_ATTEMPTS} Ray jobs of flow run {job.flow_run_id} failed; look at the last one's log"
    )


def _last_words(client: Any, submission_id: str) -> str:
    try:
        lines = [line.strip() for line in client.get_job_logs(submission_id).splitlines() if line.strip()]
    except RuntimeError:
        lines = []
    errors = [line for line in lines if line.startswith("error:")]
    words: str = (errors or lines or ["no log"])[-1][:500]
    return words
