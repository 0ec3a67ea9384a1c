"""A machine of a cluster goes away in the middle of a training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.servers.environment import RAY_ON_LOOPBACK


@pytest.mark.e2e
def test_a_training_goes_on_with_fewer_workers_when_a_node_is_gone(tmp_path: Path, repository: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", *RAY_ON_LOOPBACK)}
    command = [sys.executable, "-m", "tests.system.elastic_run", str(tmp_path)]
    run = subprocess.run(
        command, cwd=repository, env=environment, stdout=subprocess.PIPE, text=True, timeout=900, check=True
    )
    state = json.loads(run.stdout.splitlines()[-1])
    assert state["removed"] and state["restarts"] >= 1
    assert (state["step"], state["world_size"]) == (1500, 1)
