"""The smoke chain through `prefect deployment run`: what MLflow, Prefect and the storage root hold afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components.pipeline.steps import STEPS
from components.tracking.runs import tracking_client
from flows.run.summary import last_lines
from tests.system.conftest import Prefect, Workplace, wait_for

TASK = "eval/digits/exact_match"


@pytest.fixture(scope="module")
def parent(smoke: tuple[Workplace, str]) -> Any:
    place, _ = smoke
    return tracking_client(place.config.tracking).get_run(place.summary["mlflow_run_id"])


@pytest.fixture(scope="module")
def children(smoke: tuple[Workplace, str], parent: Any) -> dict[str, Any]:
    client = tracking_client(smoke[0].config.tracking)
    query = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    return {run.info.run_name: run for run in client.search_runs([parent.info.experiment_id], query)}


def test_the_summary_has_its_numbers(smoke: tuple[Workplace, str]) -> None:
    summary = smoke[0].summary
    assert 0.0 <= summary["score_before"] <= 1.0 and summary["heldout"] == 16
    assert set(summary["steps"]) == set(STEPS) and summary["registered_model_version"]
    assert all(set(step) >= {"seconds", "cached"} for step in summary["steps"].values())
    assert summary["startup_seconds"] > 0 and summary["work_seconds"] > 0


def test_mlflow_has_a_finished_child_for_each_step(parent: Any, children: dict[str, Any]) -> None:
    assert parent.info.status == "FINISHED"
    assert {name: run.info.status for name, run in children.items()} == dict.fromkeys(STEPS, "FINISHED")


def test_the_resolved_config_stands_as_flat_params(parent: Any) -> None:
    assert parent.data.params["train.steps"] == "20"
    assert parent.data.params["model.architecture.decoder.dim"] == "128"


def test_training_curves_are_recorded(smoke: tuple[Workplace, str], children: dict[str, Any]) -> None:
    client = tracking_client(smoke[0].config.tracking)
    for name in ("train/loss", "train/lr", "train/tokens_per_s"):
        assert [m.step for m in client.get_metric_history(children["train"].info.run_id, name)][-1] == 20, name


def test_the_numbers_in_mlflow_are_those_of_the_summary(
    smoke: tuple[Workplace, str], parent: Any, children: dict[str, Any]
) -> None:
    summary = smoke[0].summary
    assert parent.data.metrics[TASK] == children["evaluate"].data.metrics[TASK] == summary["score_after"]
    assert children["evaluate_base"].data.metrics[TASK] == summary["score_before"]


def test_runs_compare_by_their_settings_and_losses(parent: Any, children: dict[str, Any]) -> None:
    """Side by side in MLflow, two train runs differ in `train.lr`; the parents show how the trainings ended."""
    assert float(children["train"].data.params["train.lr"]) == float(parent.data.params["train.lr"])
    assert parent.data.metrics["train/loss"] == children["train"].data.metrics["train/loss"]


def test_report_curve_and_manifests_are_files_of_the_runs(
    smoke: tuple[Workplace, str], parent: Any, children: dict[str, Any]
) -> None:
    client = tracking_client(smoke[0].config.tracking)
    assert {"report.html", "loss.png", "config.yaml"} <= {f.path for f in client.list_artifacts(parent.info.run_id)}
    for child in children.values():
        assert "manifest.json" in {file.path for file in client.list_artifacts(child.info.run_id)}


def test_the_data_set_has_the_manifests_digest(smoke: tuple[Workplace, str], parent: Any) -> None:
    (dataset,) = parent.inputs.dataset_inputs
    place = smoke[0]
    (manifest,) = Path(place.root / "runs/artifacts/convert").glob("*/manifest.json")
    assert dataset.dataset.digest == json.loads(manifest.read_text())["digest"]


def test_runs_are_linked_in_both_directions(
    smoke: tuple[Workplace, str], prefect: Prefect, parent: Any, children: dict[str, Any]
) -> None:
    flow_run = smoke[1]
    for run in (parent, *children.values()):
        assert run.data.tags["prefect.flow_run_id"] == flow_run
        assert run.data.tags["prefect.flow_run_url"].endswith(flow_run)
        assert len(run.data.tags["plm.config_sha"]) == 64
    assert parent.data.tags["prefect.deployment"] == "local"
    assert "plm.data_digest" in parent.data.tags
    assert parent.data.tags["mlflow.source.git.commit"]
    links = prefect.post("artifacts/filter", {"flow_runs": {"id": {"any_": [flow_run]}}})
    texts = {artifact["key"]: artifact["data"] for artifact in links}
    assert parent.info.run_id in texts["mlflow-run"]
    assert children["train"].info.run_id in texts["mlflow-train"]


def test_prefect_has_one_task_run_per_step_with_links(smoke: tuple[Workplace, str], prefect: Prefect) -> None:
    tasks = prefect.tasks(smoke[1])
    assert {name: task["state_name"] for name, task in tasks.items()} == dict.fromkeys(STEPS, "Completed")
    for name, task in tasks.items():
        links = prefect.post("artifacts/filter", {"artifacts": {"task_run_id": {"any_": [task["id"]]}}})
        slug = name.replace("_", "-")
        assert {f"artifact-{slug}", f"mlflow-{slug}"} <= {link["key"] for link in links}


@pytest.mark.case("E15")
def test_prefect_draws_each_input_as_an_edge_from_the_step_that_made_it(
    smoke: tuple[Workplace, str], prefect: Prefect
) -> None:
    tasks = prefect.tasks(smoke[1])
    names = {task["id"]: name for name, task in tasks.items()}
    edges = {name: {names[end["id"]] for end in task["task_inputs"].get("inputs", [])} for name, task in tasks.items()}
    assert edges == {name: set(step.inputs.values()) for name, step in STEPS.items()}


@pytest.mark.case("E15")
def test_prefects_log_tells_of_reuse_loss_and_gate(smoke: tuple[Workplace, str], prefect: Prefect) -> None:
    def lines() -> list[str]:
        found = prefect.post("logs/filter", {"logs": {"flow_run_id": {"any_": [smoke[1]]}}, "limit": 200})
        return [log["message"] for log in found]

    # The last ones are sent as the flow's process ends, a little after the state.
    wait_for(
        lambda: any(line.startswith("gate: ") and "gate is null" in line for line in lines()), 60, "the gate's line"
    )
    assert any(line.startswith("ingest: runs: ") for line in lines())
    assert any(line.startswith("train: ") and "loss" in line for line in lines()), lines()


@pytest.mark.case("E15")
def test_the_parent_run_has_the_summary_as_its_note_and_the_version(
    smoke: tuple[Workplace, str], parent: Any, prefect: Prefect
) -> None:
    summary = smoke[0].summary
    version = f"{summary['registered_model']}/{summary['registered_model_version']}"
    assert parent.info.run_name == "smoke" and parent.data.tags["plm.registered_model_version"] == version
    note = parent.data.tags["mlflow.note.content"]
    assert f"{summary['score_after']:.3f} [" in note and f"The gate: {summary['gate']}." in note
    shown = prefect.post("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [smoke[1]]}}})
    texts = {artifact["key"]: artifact["data"] for artifact in shown}
    assert f"/runs/{parent.info.run_id}/artifacts/report.html" in texts["report"]
    assert not [key for key, text in texts.items() if "file://" in str(text)]


@pytest.mark.case("E19b", "E19e")
def test_the_last_lines_tell_what_the_gate_decided_and_how_sure_each_number_is(smoke: tuple[Workplace, str]) -> None:
    summary = smoke[0].summary
    *_, score, gain, gate = last_lines(summary)
    low, high = summary["score_after_interval"]
    assert score.endswith(f"(95% interval {low:.3f} to {high:.3f}) on 16 held-out rows")
    assert low <= summary["score_after"] <= high and high - low > 0.1
    assert gain.startswith("gain ") and "becomes champion" in gate


def test_prefect_shows_the_comparison(smoke: tuple[Workplace, str], prefect: Prefect) -> None:
    shown = prefect.post("artifacts/filter", {"flow_runs": {"id": {"any_": [smoke[1]]}}})
    assert "exact_match" in {artifact["key"]: artifact["data"] for artifact in shown}["comparison"]


def test_the_registry_has_a_challenger_that_points_back(smoke: tuple[Workplace, str]) -> None:
    place = smoke[0]
    version = tracking_client(place.config.tracking).get_model_version_by_alias("smoke", "challenger")
    assert str(version.version) == str(place.summary["registered_model_version"])
    assert {"plm.data_digest", "plm.config_sha", "mlflow.source.git.commit", "metric/digits/exact_match"} <= set(
        version.tags
    )


def test_both_ranks_wrote_their_shards(smoke: tuple[Workplace, str]) -> None:
    files = [path.name for path in (smoke[0].root / "runs/artifacts/train").rglob("*.distcp")]
    assert {"__0_0.distcp", "__1_0.distcp"} <= set(files)


def test_nothing_to_resume_is_left(smoke: tuple[Workplace, str]) -> None:
    assert not [path for path in (smoke[0].root / "runs").glob("resume/*/*") if any(path.rglob("*.distcp"))]


def test_a_second_run_reuses_every_step_without_torch_and_ray(smoke: tuple[Workplace, str]) -> None:
    place = smoke[0]
    script = (
        "import sys; from flows.cli import main; status = main(sys.argv[1:]); "
        "print('imported', [name for name in ('torch', 'ray') if name in sys.modules]); sys.exit(status)"
    )
    command = [sys.executable, "-c", script, "finetune", "configs/smoke.yaml", *place.overrides]
    ran = subprocess.run(command, cwd=place.repository, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert "imported []" in ran.stdout
    assert all(step["cached"] for step in place.summary["steps"].values())
    assert "exact_match before" in ran.stdout


def reused(place: Workplace, *overrides: str) -> dict[str, bool]:
    ran = place.plm("finetune", "configs/smoke.yaml", "--explain", "--json", *place.overrides, *overrides)
    assert ran.returncode == 0, ran.stderr
    return {decision["step"]: decision["reused"] for decision in json.loads(ran.stdout.splitlines()[-1])}


@pytest.mark.parametrize(
    ("override", "rerun"),
    [
        ("evaluate.max_new_tokens=5", {"evaluate_base", "evaluate", "evaluate_champion", "compare", "register"}),
        (
            "train.lr=1.0e-4",
            {"train", "consolidate", "evaluate", "champion", "evaluate_champion", "compare", "register"},
        ),
        ("gate.min_gain=0.5", {"champion", "evaluate_champion", "compare", "register"}),
        ("train.max_failures=7", set()),
    ],
)
def test_a_changed_value_reruns_what_depends_on_it(
    smoke: tuple[Workplace, str], override: str, rerun: set[str]
) -> None:
    decisions = reused(smoke[0], override)
    assert {name for name, is_reused in decisions.items() if not is_reused} == rerun


def test_explain_names_the_key_that_changed(smoke: tuple[Workplace, str]) -> None:
    place = smoke[0]
    ran = place.plm("finetune", "configs/smoke.yaml", "--explain", *place.overrides, "train.lr=1.0e-4")
    assert "config train.lr: 0.002 -> 0.0001" in ran.stdout


def test_refresh_runs_one_step_again(smoke: tuple[Workplace, str]) -> None:
    place = smoke[0]
    ran = place.plm("finetune", "configs/smoke.yaml", "--explain", "--refresh", "compare", *place.overrides)
    assert "compare            runs    refresh was asked for" in ran.stdout
