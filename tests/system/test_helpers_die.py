"""A helper process dies in the middle of a run: one line, an end in time, and statuses that agree; or it comes back."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from components.tracking.runs import tracking_client
from tests.system.conftest import Workplace, wait_for
from tests.system.test_interruptions import Running, nothing_left, prefect_states

pytestmark = [pytest.mark.e2e, pytest.mark.case("R8")]  # a whole start of the chain each


def child(run: Running, name: str) -> psutil.Process:
    """The process below a run whose command line has a word in it."""

    def find() -> psutil.Process | None:
        for process in psutil.Process(run.process.pid).children(recursive=True):
            try:
                if name in " ".join(process.cmdline()[:3]):
                    return process
            except psutil.Error:
                continue
        return None

    return wait_for(find, 120, name)


@pytest.mark.parametrize("helper", ["raylet/raylet", "gcs/gcs_server"])
@pytest.mark.parametrize("step", ["preprocess", "train"])
def test_a_local_ray_that_loses_a_part_is_one_line_in_time_and_said_everywhere(
    tmp_path: Path, repository: Path, step: str, helper: str
) -> None:
    """While Ray starts, its own code ends the process with status 1; the next start then closes the records."""
    place = Workplace(tmp_path, repository)
    run = Running(place, "train.steps=100000", "ingest.source.limit=1797", "preprocess.rows_per_shard=32")
    run.wait_to_say(f" {step} ", "rows encoded" if step == "preprocess" else "step ", timeout_s=600)
    child(run, helper).kill()
    killed = time.monotonic()
    assert run.process.wait(100) == 2, "".join(run.lines[-30:])
    print(f"{step} without {helper}: ended after {time.monotonic() - killed:.1f} s")
    errors = [line for line in run.lines if line.startswith("error: ")]
    assert len(errors) == 1 and f"its {helper.partition('/')[2]} is gone" in errors[0], "".join(run.lines[-30:])
    assert not [line for line in run.lines if "Traceback" in line]
    client = tracking_client(place.config.tracking)
    experiment = client.get_experiment_by_name("plm-pipeline").experiment_id
    statuses = {found.data.tags.get("plm.step", ""): found.info.status for found in client.search_runs([experiment])}
    assert statuses[""] == statuses[step] and statuses[""] in ("FAILED", "KILLED"), statuses
    assert prefect_states(place)[0] == {"FAILED": "Failed", "KILLED": "Crashed"}[statuses[""]]
    nothing_left(place)


def test_a_killed_prefect_server_costs_a_run_nothing(tmp_path: Path, repository: Path) -> None:
    place = Workplace(tmp_path, repository)
    run = Running(place)
    run.wait_to_say(" preprocess ", "runs:", timeout_s=600)
    child(run, "prefect_child").kill()
    run.finish(900)
    assert run.says("the local Prefect server ended (status -9); it is started again")
    assert prefect_states(place)[0] == "Completed"
