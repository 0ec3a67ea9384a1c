"""The whole chain from a checkpoint in Hugging Face's layout and from registered data sets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.example_sets import CONFIGS, example_registry
from tests.plm_model.model_directories import SCALED, reference_directory
from tests.system.conftest import Workplace


@pytest.mark.e2e
def test_a_published_checkpoint_learns_from_registered_data_sets(tmp_path: Path, repository: Path) -> None:
    place = Workplace(tmp_path, repository)
    reference_directory(tmp_path / "published")
    config = write_config(tmp_path)
    done = place.plm("finetune", config, "--json", *place.overrides)
    assert done.returncode == 0, done.stderr
    (base,) = tmp_path.glob("runs/artifacts/base/*/*/config.json")
    model = json.loads(base.read_text())
    assert model["decoder"]["dim"] == SCALED.decoder.dim and model["processor"]["max_num_tiles"] == 4
    (shards,) = tmp_path.glob("runs/artifacts/preprocess/*/*/statistics.json")
    assert json.loads(shards.read_text())["train"]["examples"] > 40
    for answers in tmp_path.glob("runs/artifacts/evaluate*/*/*/samples/heldout.jsonl"):
        asked = [json.loads(line) for line in answers.read_text().splitlines()]
        kinds = {"video" if row["video"] else "image" if row["image"] else "text" for row in asked}
        assert kinds == {"video", "image", "text"}, "lmms-eval was not asked about every kind of media"
    assert "audit.html" in artifacts_of(tmp_path, "preprocess")

    for change, reused in (("train.lr=3e-4", True), ("model.architecture.processor.max_num_tiles=1", False)):
        planned = place.plm("finetune", config, "--explain", "--json", change, *place.overrides)
        steps = {each["step"]: each["reused"] for each in json.loads(planned.stdout.splitlines()[-1])}
        assert not steps["train"] and steps["convert"] and steps["preprocess"] is reused


def artifacts_of(folder: Path, step: str) -> set[str]:
    """Names of what MLflow has of the newest run of a step."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/state/mlflow.db")
    experiments = [each.experiment_id for each in client.search_experiments()]
    run = client.search_runs(experiments, f"tags.`mlflow.runName` = '{step}'", max_results=1)[0]
    return {file.path for file in client.list_artifacts(run.info.run_id)}


def write_config(folder: Path) -> str:
    """A config that names every example set and the checkpoint."""
    names = tuple(yaml.safe_load((CONFIGS / "datasets.yaml").read_text()))
    example_registry(folder, names)
    config = {
        "name": "published",
        "ingest": {"source": {"kind": "catalogue", "catalogue": "datasets.yaml"}},
        "convert": {"test_fraction": 0.2},
        "preprocess": {"max_tokens": 512},
        "model": {
            "init": f"{folder}/published",
            "architecture": {"processor": {"max_num_tiles": 4, "max_video_frames": 8}},
        },
        "train": {"datamix": ", ".join(f"{name}:1" for name in names), "steps": 2, "workers": 1, "warmup_steps": 1},
        "evaluate": {"max_new_tokens": 4},
        "compare": {"examples": 2},
        "gate": None,
    }
    (folder / "published.yaml").write_text(yaml.safe_dump(config))
    return str(folder / "published.yaml")
