"""Benchmarks by name: what there is not is said at once, with the nearest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.pipeline.config import PipelineConfig
from components.preflight.benchmarks import names


def found(**sections: Any) -> list[str]:
    return [finding.text for finding in names(PipelineConfig.model_validate(sections)) if finding.refuses]


@pytest.mark.case("E19d")
def test_a_task_that_there_is_not_is_named_with_the_nearest() -> None:
    (text,) = found(evaluate={"tasks": ["docvqa_vall", "mme"]})
    assert text.startswith("evaluate.tasks: docvqa_vall: lmms-eval has no such task; did you mean docvqa_val")


@pytest.mark.case("E19d")
def test_a_suite_that_there_is_not_is_named_with_the_nearest() -> None:
    (text,) = found(evaluate={"suites": ["plm_images"]})
    assert text == "evaluate.suites: plm_images: there is no such suite in configs/eval; did you mean plm_image?"


def test_groups_and_tasks_of_ours_and_of_the_user_are_known(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("task: my_task\n")
    evaluate = {"tasks": ["mvbench", "pipeline_vsr", "my_task"], "include_path": str(tmp_path)}
    assert found(evaluate=evaluate) == []


def test_a_folder_of_tasks_that_there_is_not_is_refused() -> None:
    assert found(evaluate={"include_path": "/nowhere"}) == ["evaluate.include_path: /nowhere: no such folder"]


def test_a_gate_on_a_task_that_nothing_measures_is_refused() -> None:
    evaluate = {"task": "digits", "suites": ["plm_image"]}
    (text,) = found(evaluate=evaluate, gate={"main": ["DocVQAA"], "require": ["digits", "MME"]})
    assert text == "gate.main: DocVQAA: is not measured; did you mean DocVQA?"


def test_held_out_rows_that_are_called_like_a_benchmark_are_refused() -> None:
    (text,) = found(evaluate={"task": "MME", "suites": ["plm_image"]})
    assert text.startswith("evaluate.task: MME is the name of a benchmark, too")
