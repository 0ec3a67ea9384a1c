"""A suite, a task of lmms-eval and one of the user's own, asked of a real model directory by the step itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from components.artifacts.artifact import Artifact, ArtifactWriter
from components.artifacts.context import StepContext
from components.artifacts.store import ArtifactStore
from components.evaluate.step import run
from components.pipeline.config import PipelineConfig
from tests.components.evaluate.benchmarks.given import write
from tests.components.evaluate.benchmarks.given_images import image_sets
from tests.components.evaluate.test_step import made

SUITE = """
title: Two of them
columns:
  - title: ChartQA
    tasks: [chartqa]
    split: test
    setting: relaxed accuracy
    metric: relaxed_overall
    scale: 100
    per_question: {key: relaxed_overall}
    published: {split: test, setting: relaxed accuracy, plm_1b: 78.6}
  - {title: Lost, tasks: [infovqa_val], split: validation, setting: ANLS, metric: anls}
  - {title: Served, tasks: [docvqa_test], split: test, setting: ANLS, metric: anls, not_measured: submission server only}
"""
OWN = """
task: my_task
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
test_split: test
output_type: generate_until
doc_to_visual: !function mine.nothing
doc_to_text: question
doc_to_target: answer
generation_kwargs: {max_new_tokens: 3, temperature: 0, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""


@pytest.fixture(scope="module")
def evaluated(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[[ArtifactStore, Path], Artifact]
) -> SimpleNamespace:
    """The step, its data on this machine only."""
    place = tmp_path_factory.mktemp("suite")
    store = ArtifactStore(str(place / "runs"), place / "cache")
    chartqa = [each for each in image_sets("") if each.task in ("chartqa", "ai2d_no_mask")]
    (place / "data").mkdir()
    write(chartqa, place / "data", place / "home")
    (place / "suite.yaml").write_text(SUITE)
    (place / "mine").mkdir()
    (place / "mine/mine.yaml").write_text(OWN)
    (place / "mine/mine.py").write_text("def nothing(document):\n    return []\n")
    (place / "mine/rows.jsonl").write_text('{"question": "Why?", "answer": "so"}\n')
    config = PipelineConfig.model_validate(
        {
            "evaluate": {
                "suites": [str(place / "suite.yaml")],
                "tasks": ["ai2d_no_mask", "my_task"],
                "include_path": str(place / "mine"),
                "data": str(place / "data"),
                "offline": True,
                "max_new_tokens": 3,
                "batch_size": 2,
            }
        }
    )
    inputs = {"model": tiny_model(store, place), "dataset": dataset(store)}
    seen = SimpleNamespace(metrics={}, tags={}, said=[])
    tracker = SimpleNamespace(run_id=None, log_metrics=seen.metrics.update, tag=seen.tags.__setitem__)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(place / "home"))
        context = StepContext(tracker, seen.said.append, store.cache_dir, "")  # type: ignore[arg-type]
        seen.artifact = made(store, "evaluate", lambda out: run(config.evaluate, inputs, out, context))
    seen.results = seen.artifact.read_json("results.json")
    return seen


def dataset(store: ArtifactStore) -> Artifact:
    def fill(out: ArtifactWriter) -> None:
        out.links["media"] = store.root
        turns = [{"from": "human", "value": "What?"}, {"from": "assistant", "value": "This."}]
        with out.open("test.jsonl", "w") as file:
            for number in range(3):
                file.write(json.dumps({"id": f"row-{number}", "conversations": turns}) + "\n")

    return made(store, "convert", fill)


def test_a_benchmark_has_its_figure_beside_the_published_one(evaluated: SimpleNamespace) -> None:
    chartqa = evaluated.results["tasks"]["ChartQA"]
    assert (chartqa["not_measured"], chartqa["best"], chartqa["n"]) == (None, 100.0, 4)
    assert (chartqa["comparable"], chartqa["published"]["plm_1b"]) == (True, 78.6)
    rows = [json.loads(line) for line in evaluated.artifact.open(chartqa["samples"], "r")]
    assert chartqa["value"] == pytest.approx(sum(row["score"] for row in rows) / len(rows))
    assert all(row["question"] and row["target"] for row in rows)


def test_a_benchmark_whose_data_are_not_at_hand_is_not_measured_and_costs_no_other(evaluated: SimpleNamespace) -> None:
    lost = evaluated.results["tasks"]["Lost"]
    assert lost["value"] is None and "infovqa_val did not run" in lost["not_measured"]
    assert "eval.not_measured.Lost" in evaluated.tags and not [name for name in evaluated.metrics if "Lost" in name]


def test_a_benchmark_that_no_one_can_measure_here_says_why(evaluated: SimpleNamespace) -> None:
    assert evaluated.results["tasks"]["Served"]["not_measured"] == "submission server only"


def test_single_tasks_and_those_of_the_user_have_their_first_metric(evaluated: SimpleNamespace) -> None:
    tasks = evaluated.results["tasks"]
    assert (tasks["my_task"]["metric"], tasks["my_task"]["n"], tasks["my_task"]["value"]) == ("exact_match", 1, 0.0)
    assert tasks["ai2d_no_mask"]["metric"] == "exact_match.flexible-extract"
    assert "eval/my_task/exact_match" in evaluated.metrics
