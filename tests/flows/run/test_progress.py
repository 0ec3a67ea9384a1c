"""What a person sees of a run, and what is kept of it in a log."""

from __future__ import annotations

import io

import pytest

from flows.run.progress import Progress


@pytest.mark.case("E15")
def test_a_kept_log_gets_what_stays_the_first_and_the_last_of_what_is_replaced() -> None:
    flow: list[str] = []
    task: list[str] = []
    progress = Progress(io.StringIO(), record=flow.append)
    progress.say("train", "runs: config train.lr: 1 -> 2")
    with progress.recorded_by(task.append):
        for step in range(1, 50):
            progress.update("train", f"step {step} of 49, loss {1 / step:.2f}, 3 s left")
    progress.say("gate", "stays challenger")
    assert flow == ["train: runs: config train.lr: 1 -> 2", "gate: stays challenger"]
    assert task[-1] == "train: step 49 of 49, loss 0.02, 3 s left" and len(task) <= 2
