"""Truth after a kill -9: each pipeline process renews a lease file; whoever starts next closes the runs of the dead."""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

from components.artifacts.lock import this_machine
from components.errors import UserError
from components.pipeline.config import PipelineConfig
from components.processes.identity import identity, is_alive
from components.processes.local_ray import before_sudden_end
from components.tracking.runs import spool_dir, state_dir, tracking_client
from components.tracking.spool import PARENT_TAG, parents_of_waiting, replay_spools

log = logging.getLogger(__name__)
OPEN_STATES = ("RUNNING", "PENDING")
RENEW_SECONDS = 20.0
STALE_SECONDS = 120.0


class RunRecord:
    """What this process has open: its MLflow parent run and its Prefect flow run. Renewed until it is given back."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"{uuid.uuid4().hex}.json"
        self._values: dict[str, Any] = {**identity(os.getpid()), "machine": this_machine()}
        self._guard, self._ended = threading.Lock(), threading.Event()

    def update(self, **values: Any) -> None:
        with self._guard:
            if self._ended.is_set():
                return
            self._values.update(values)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._path.with_suffix(".tmp")
            temporary.write_text(json.dumps(self._values))
            temporary.replace(self._path)

    def value(self, name: str) -> str | None:
        return self._values.get(name)

    def renew(self) -> None:
        """Write it again every RENEW_SECONDS, in a thread of its own: who renews lives, whatever its machine is called."""

        def keep_renewing() -> None:
            while not self._ended.wait(RENEW_SECONDS):
                with contextlib.suppress(OSError):  # of a disk that is away or full for now
                    self.update()

        threading.Thread(target=keep_renewing, name="run lease", daemon=True).start()

    def release_at_exit(self) -> None:
        """Give the lease back when the process ends: until then Prefect may still be closing the flow run."""

        def release() -> None:
            self._ended.set()
            with self._guard:
                self._path.unlink(missing_ok=True)

        atexit.register(release)


@contextlib.contextmanager
def lease(config: PipelineConfig) -> Iterator[RunRecord]:
    """A lease for the block. It is given back after an end in order, or an error.

    A signal leaves it: a second one may cut the closing short, so the next start looks again at what is still open.
    """
    held = RunRecord(_folder(config))
    held.update()
    held.renew()

    def close_own() -> None:
        _close_mlflow(config, held.value("mlflow_run_id"), held.value("experiment_id"))
        _close_prefect(held.value("prefect_flow_run_id"))

    before_sudden_end.append(close_own)
    try:
        yield held
    except Exception:
        held.release_at_exit()
        raise
    finally:
        before_sudden_end.remove(close_own)
    held.release_at_exit()


def close_dead_runs(config: PipelineConfig, in_prefect: bool = True, flow_run: str | None = None) -> list[str]:
    """Mark runs of dead `plm` processes KILLED in MLflow and Crashed in Prefect, and stop their Ray jobs.

    Dead is a process of this machine that is no more, and one elsewhere whose lease was not renewed for STALE_SECONDS: a pod
    that comes back has another name.

    Returns the MLflow run ids. A store that does not answer is tried again at the next start, and so is a cluster, as long
    as the config names it. The flow run that asks keeps its jobs and its state: it is a retry that attaches to them.
    """
    leases = _dead_leases(config)
    if leases:
        _send_what_waits(config)
    closed: list[str] = []
    for path, dead in leases.items():
        theirs = dead.get("prefect_flow_run_id") if dead.get("prefect_flow_run_id") != flow_run else None
        stopped = _stop_jobs(dead.get("ray_address"), theirs)
        try:
            closed += _close_mlflow(config, dead.get("mlflow_run_id"), dead.get("experiment_id"))
            if in_prefect:
                _close_prefect(theirs)
        except Exception as error:  # MLflow's, Prefect's and httpx's families; the lease stays for the next start
            log.warning(
                "the run of dead process %s stays open for now: %s", dead["pid"], " ".join(str(error).split())[:160]
            )
            continue
        if in_prefect and (stopped or dead.get("ray_address") != config.ray.address):
            path.unlink(missing_ok=True)
    return closed


def _dead_leases(config: PipelineConfig) -> dict[Path, dict[str, Any]]:
    """Leases of processes that are no more."""
    found: dict[Path, dict[str, Any]] = {}
    now = _clock_of(_folder(config))
    for path in sorted(_folder(config).glob("*.json")):
        with contextlib.suppress(OSError, ValueError):
            held, age = json.loads(path.read_text()), now - path.stat().st_mtime
            if _dead(held, age):
                found[path] = held
    return found


def _dead(held: dict[str, Any], age: float) -> bool:
    """Whether the owner of a lease that was renewed `age` seconds ago is gone."""
    here = held["machine"] == this_machine() if "machine" in held else held.get("host") == socket.gethostname()
    return not is_alive(held) if here else age > STALE_SECONDS


def _clock_of(folder: Path) -> float:
    """Now, by the clock that gives the files of a folder their times: it may be another machine's."""
    if not folder.is_dir():
        return time.time()
    probe = folder / f".now-{uuid.uuid4().hex}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        probe.unlink(missing_ok=True)


def _send_what_waits(config: PipelineConfig) -> None:
    """Send the spools of the dead, so that a child run that was to be made later is there to be closed."""
    if any(spool_dir(config.tracking).glob("*.jsonl")):
        replay_spools(tracking_client(config.tracking), spool_dir(config.tracking))


def _folder(config: PipelineConfig) -> Path:
    return state_dir(config.tracking) / "live"


def _close_mlflow(config: PipelineConfig, parent: str | None, experiment: str | None) -> list[str]:
    if not parent:
        return []
    client = tracking_client(config.tracking)
    if parent in parents_of_waiting(spool_dir(config.tracking)):
        raise UserError("one of its steps is not recorded yet")  # sent later, it would stay open for ever
    children = client.search_runs([experiment], f"tags.`{PARENT_TAG}` = '{parent}'") if experiment else []
    runs = [run for run in [*children, *_run(client, parent)] if run.info.status == "RUNNING"]
    for run in runs:
        client.set_terminated(run.info.run_id, "KILLED")
    return [run.info.run_id for run in runs]


def _run(client: Any, run_id: str) -> list[Any]:
    from mlflow.exceptions import MlflowException

    try:
        return [client.get_run(run_id)]
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":  # the store was deleted meanwhile
            return []
        raise


def _stop_jobs(address: str | None, flow_run_id: str | None) -> bool:
    """Stop the jobs of a dead flow run, which would go on beside those of the next one; False when the cluster is away."""
    if not address or not flow_run_id:
        return True
    from components.pipeline.ray_jobs import job_client, stop_jobs_of_flow_run

    try:
        stopped = stop_jobs_of_flow_run(job_client(address), flow_run_id)
    except Exception as error:  # ours, requests and Ray families
        reason = " ".join(str(error).split())[:160]
        log.warning("Ray jobs of dead flow run %s may still run, look there: %s", flow_run_id, reason)
        return False
    for job in stopped:
        log.warning("stopped Ray job %s of a dead run", job)
    return True


def _close_prefect(flow_run_id: str | None) -> None:
    if not flow_run_id or not os.environ.get("PREFECT_API_URL"):
        return
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Crashed

    crashed: Any = Crashed(message="The process of this run was killed.")
    # Prefect's own client: it has the login, the certificates and the proxy of Prefect's settings.
    with get_client(sync_client=True) as client:
        try:
            flow = client.read_flow_run(UUID(flow_run_id))
        except (ObjectNotFound, ValueError):  # another server's run, its database was deleted, or it is no id
            return
        of_run = FlowRunFilter(id=FlowRunFilterId(any_=[flow.id]))
        for task in client.read_task_runs(flow_run_filter=of_run):
            if task.state_type in OPEN_STATES:
                client.set_task_run_state(task.id, crashed, force=True)
        if flow.state_type in OPEN_STATES:
            client.set_flow_run_state(flow.id, crashed, force=True)
