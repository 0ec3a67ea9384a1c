"""Traces of chosen steps, and of those that a file asks for while the training runs."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch

from components.train.measure import profiler as module
from components.train.measure.profiler import Profiler
from components.train.model.parallel import Group
from components.train.sections import ProfileSettings

ALONE = Group(torch.device("cpu"))


def run(profiler: Profiler, steps: range, touch: dict[int, Path] | None = None) -> None:
    for step in steps:
        torch.ones(step, step) @ torch.ones(step, step)
        if touch and step in touch:
            touch[step].write_text("2\n")
        profiler.after_step(step)
    profiler.close()


def products(folder: Path) -> list[list[int]]:
    """Shapes of the matrix products in a trace: they tell the steps."""
    with gzip.open(folder / "trace.json.gz", "rt") as file:
        events = json.load(file)["traceEvents"]
    return [event["args"]["Input Dims"][0] for event in events if event.get("name") == "aten::mm"]


def test_the_steps_of_the_settings_are_traced(tmp_path: Path) -> None:
    run(Profiler(str(tmp_path), ProfileSettings(first=3, steps=2), ALONE, next_step=1), range(1, 8))
    assert products(tmp_path / "profiles" / "step-00000003") == [[3, 3], [4, 4]]


def test_the_first_step_can_be_traced_and_a_trace_ends_with_the_training(tmp_path: Path) -> None:
    run(Profiler(str(tmp_path), ProfileSettings(first=1, steps=9), ALONE, next_step=1), range(1, 3))
    assert products(tmp_path / "profiles" / "step-00000001") == [[1, 1], [2, 2]]


def test_a_file_asks_for_the_steps_that_follow_it_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.0)
    request = tmp_path / "profile"
    run(Profiler(str(tmp_path), None, ALONE, next_step=1), range(1, 9), touch={2: request, 6: request})
    assert products(tmp_path / "profiles" / "step-00000003") == [[3, 3], [4, 4]]
    assert products(tmp_path / "profiles" / "step-00000007") == [[7, 7], [8, 8]]
    assert not request.exists()


def test_steps_before_a_resumed_one_are_not_traced_and_other_ranks_never_are(tmp_path: Path) -> None:
    run(Profiler(str(tmp_path), ProfileSettings(first=3, steps=2), ALONE, next_step=5), range(5, 8))
    other = Group(torch.device("cpu"), rank=1, world=2)
    run(Profiler(str(tmp_path), ProfileSettings(first=3, steps=2), other, next_step=1), range(1, 8))
    assert not (tmp_path / "profiles").exists()


def test_a_trace_that_cannot_be_written_does_not_stop_the_training(tmp_path: Path) -> None:
    (tmp_path / "profiles").write_text("in the way")
    run(Profiler(str(tmp_path), ProfileSettings(first=1, steps=1), ALONE, next_step=1), range(1, 4))
