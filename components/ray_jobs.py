"""Run a step as a Ray job: deterministic id, attached to when it already runs, stopped when the waiting one is stopped."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.artifacts import ArtifactStore, filesystem
from components.config import PipelineConfig
from components.config_loading import dump_config
from components.errors import UserError

STOP_SECONDS = 25.0  # inside the 30 s that Prefect leaves a cancelled flow
JOB_STOP_WAIT_SECONDS = "20"  # Ray's own default of 3 s is too short for a training driver to clean up
MAX_ATTEMPTS = 100


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


def publish_config(config: PipelineConfig, store: ArtifactStore, digest: str) -> str:
    """Write the resolved config below the storage root, with storage paths absolute; returns its URI."""
    inside = config.model_copy(
        update={
            "extends": None,
            "storage": config.storage.model_copy(update={"root": store.root, "cache_dir": str(store.cache_dir)}),
            "tracking": config.tracking.model_copy(
                update={"state_dir": str(Path(config.tracking.state_dir).absolute())}
            ),
            "ray": config.ray.model_copy(update={"address": None, "working_dir": None}),
        }
    )
    uri = store.uri("configs", f"{digest[:16]}.yaml")
    fs, path = filesystem(uri)
    if "://" not in uri:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    fs.pipe_file(path, dump_config(inside).encode())
    return uri


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
        while not (status := client.get_job_status(submission_id)).is_terminal():
            on_poll(submission_id)
            time.sleep(poll_seconds)
    except BaseException:
        stop_job(client, submission_id)
        raise
    if status.value != "SUCCEEDED":
        raise UserError(
            f"{job.step}: Ray job {submission_id} ended as {status.value}: {_last_words(client, submission_id)}"
        )
    return submission_id


def stop_job(client: Any, submission_id: str) -> None:
    """Ask a job to stop and wait until it has."""
    with contextlib.suppress(RuntimeError):
        client.stop_job(submission_id)
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline and not client.get_job_status(submission_id).is_terminal():
        time.sleep(0.5)


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
            return client.submit_job(
                entrypoint=job.entrypoint,
                submission_id=submission_id,
                runtime_env=runtime_env,
                metadata=dict(job.metadata),
            )
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
    return (errors or lines or ["no log"])[-1][:500]
