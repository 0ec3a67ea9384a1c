"""Two trials of `make chaos`: a killed rank, and one killed while a checkpoint is being written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.e2e
@pytest.mark.timeout(700)
def test_killed_trainings_end_as_if_nothing_had_happened(repository: Path) -> None:
    command = [sys.executable, "-m", "tests.chaos", "--runs", "2", "--seed", "3"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    run = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr[-3000:]
    result = json.loads(run.stdout.splitlines()[-1])
    assert result["raw"]["kinds"] == {"torchrun worker": 1, "torchrun checkpoint": 1}
    assert [result[name] for name in ("trials", "diverged", "partial_selected", "unresumable")] == [2, 0, 0, 0]
