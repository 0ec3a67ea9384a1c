"""Benchmarks without a pipeline: which model is meant, and the tables that say how it did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.artifacts.artifact import Artifact, ArtifactWriter, StepKey
from components.errors import UserError
from components.evaluate.by_itself import Benchmarked, weights_digest, write
from components.pipeline.config import PipelineConfig
from components.pipeline.last_run import remember_key
from components.pipeline.storage import store_of
from components.tracking.runs import tracking_client
from flows.commands.benchmark import comparison, model_directory, table, with_what


@pytest.fixture
def config(tmp_path: Path) -> PipelineConfig:
    storage = {"root": str(tmp_path / "runs"), "cache_dir": str(tmp_path / "cache")}
    return PipelineConfig.model_validate({"storage": storage, "tracking": {"state_dir": str(tmp_path / "state")}})


@pytest.fixture
def model(config: PipelineConfig) -> Artifact:
    """What the last run of the pipeline `mine` made."""
    store, key = store_of(config), StepKey("consolidate")

    def fill(out: ArtifactWriter) -> None:
        out.write_json("config.json", {})

    with store.create(key) as out:
        fill(out)
    remember_key(config.model_copy(update={"name": "mine"}), store, key)
    artifact = store.find(key)
    assert artifact is not None
    return artifact


def test_the_model_of_a_pipeline_s_last_run_is_found(config: PipelineConfig, model: Artifact) -> None:
    assert model_directory(config, "run:mine") == model.local()
    with pytest.raises(UserError, match="run:other: no run of this pipeline left a model"):
        model_directory(config, "run:other")


def test_a_registered_model_is_found_by_its_alias_and_version(config: PipelineConfig, model: Artifact) -> None:
    client = tracking_client(config.tracking)
    client.create_registered_model("mine")
    version = client.create_model_version("mine", model.uri, tags={"plm.model_uri": model.uri}).version
    client.set_registered_model_alias("mine", "champion", version)
    assert model_directory(config, "models:/mine@champion") == model.local()
    assert model_directory(config, f"models:/mine/{version}") == model.local()
    with pytest.raises(UserError, match="models:/mine"):
        model_directory(config, "models:/mine@nobody")


def test_a_place_that_is_no_model_is_one_line(config: PipelineConfig) -> None:
    with pytest.raises(UserError, match="owner/name: no such directory; for the Hugging Face hub give the full commit"):
        model_directory(config, "owner/name")


def test_weights_are_known_by_their_contents(model: Artifact, tmp_path: Path) -> None:
    assert weights_digest(model.local()) == model.digest
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "a").write_text("1")
    first = weights_digest(copy)
    (copy / "a").write_text("2")
    assert weights_digest(copy) != first


def benchmarked(name: str, scores: list[float], **task: Any) -> Benchmarked:
    rows = [{"id": str(n), "cluster": str(n), "score": 100 * score} for n, score in enumerate(scores)]
    known = {"split": "test", "setting": "accuracy", "plm_1b": 78.6, "plm_3b": 84.3, "plm_8b": None}
    given = {
        "value": sum(row["score"] for row in rows) / len(rows),
        "best": 100.0,
        "n": len(rows),
        "samples": "samples/A.jsonl",
        "not_measured": None,
        "split": "test",
        "setting": "accuracy",
        "comparable": True,
        "published": known,
    }
    lost = {**given, "not_measured": "needs a judge"}
    return Benchmarked(name, "digest", {"A": {**given, **task}, "Lost": lost}, {"A": rows, "Lost": []}, {})


def test_the_table_has_the_published_figures_beside_ours_and_says_what_was_not_measured() -> None:
    _, first, second = table(benchmarked("m", [1, 1, 0, 1]))
    assert first.split() == ["A", "75.00", "4", "78.6,", "84.3,", "-"]
    assert second.endswith("not measured: needs a judge")


def test_another_split_is_named_on_both_sides() -> None:
    line = table(benchmarked("m", [1], comparable=False, split="validation"))[1]
    assert line.endswith("78.6, 84.3, - (test, accuracy; here validation, accuracy)")


def test_two_models_are_compared_over_their_questions() -> None:
    before, after = benchmarked("old", [0] * 30 + [1] * 370), benchmarked("new", [1] * 390 + [0] * 10)
    lines = comparison([before, after])
    assert lines[0].startswith("against old") and lines[1] == "new"
    assert lines[2].split()[:8] == ["A", "92.50", "->", "97.50", "mean", "score", "+5.00", "(+1.92"]
    assert lines[3].endswith("not measured of old: needs a judge")


def test_figures_without_a_score_for_each_question_have_no_interval() -> None:
    before, after = benchmarked("old", [0]), benchmarked("new", [1], samples=None)
    assert "no score for each question" in comparison([before, after])[2]


def test_results_and_samples_are_written(tmp_path: Path) -> None:
    write(benchmarked("m", [1, 0]), tmp_path / "there")
    assert (tmp_path / "there/results.json").exists()
    assert len((tmp_path / "there/samples/A.jsonl").read_text().splitlines()) == 2


def test_what_the_command_names_takes_the_place_of_the_config_s(config: PipelineConfig) -> None:
    mine = PipelineConfig.model_validate({"evaluate": {"suites": ["plm_video"], "batch_size": 3}})
    named = with_what(mine, ["smoke"], [], 5).evaluate
    assert (named.suites, named.tasks, named.limit, named.batch_size) == (("smoke",), (), 5, 3)
    assert with_what(mine, [], [], None).evaluate.suites == ("plm_video",)
