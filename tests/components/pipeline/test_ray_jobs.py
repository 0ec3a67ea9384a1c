"""What a config must have before its steps may run as Ray jobs; the jobs themselves are in tests/system/test_ray_cluster.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.artifacts.artifact import StepKey
from components.artifacts.store import ArtifactStore
from components.errors import UserError
from components.pipeline.config import PipelineConfig
from components.pipeline.config_loading import load_config
from components.pipeline.ray_jobs import check_tracking, publish_job, read_order
from components.pipeline.steps import STEPS
from components.pipeline.storage import store_of


def on(address: str | None, uri: str | None = None) -> PipelineConfig:
    return PipelineConfig.model_validate({"ray": {"address": address}, "tracking": {"uri": uri}})


def test_a_cluster_elsewhere_with_a_store_of_this_machine_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UserError, match=r"ray.address http://head:8265: sqlite.*set tracking.uri=http") as error:
        check_tracking(on("http://head:8265"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("address", "uri"),
    [
        (None, None),
        ("http://127.0.0.1:8265", None),  # a head on this machine, or a port that is forwarded: the job looks itself
        ("http://head:8265", "http://mlflow:5000"),
    ],
)
def test_what_jobs_can_reach_is_let_through(address: str | None, uri: str | None) -> None:
    check_tracking(on(address, uri))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, None),
        ({"code": {"components.errors": "0"}}, r"^train: this cluster runs other code than the flow: components\."),
        (
            {"libraries": {"torch": "1.0"}},
            r"^train: this cluster runs other libraries .*: torch \d\S* instead of 1\.0$",
        ),
    ],
    ids=["same", "code", "library"],
)
def test_a_job_of_another_code_or_library_is_refused_by_name(
    tmp_path: Path, change: dict[str, Any], message: str | None
) -> None:
    store, step = ArtifactStore(str(tmp_path), tmp_path / "cache"), STEPS["train"]
    key = replace(StepKey("train", code=step.code("plm"), libraries=step.versions()), **change)
    _, order = publish_job(on("http://127.0.0.1:8265", "http://mlflow:5000"), store, key, {})
    if message is None:
        assert read_order(order, store, "plm") == (key, {})
        return
    with pytest.raises(UserError, match=message):
        read_order(order, store, "plm")


@pytest.mark.parametrize("given", [None, "checkpoints"])
def test_a_job_finds_the_checkpoints_where_the_flow_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    """A job runs in another folder: what is relative here is absolute there."""
    monkeypatch.chdir(tmp_path)
    config = PipelineConfig.model_validate({"storage": {"root": "runs", "resume_root": given}})
    store = store_of(config)
    there, _ = publish_job(config, store, StepKey("train"), {})
    (tmp_path / "job").mkdir()
    monkeypatch.chdir(tmp_path / "job")
    assert store_of(load_config(there)).resume_uri("train") == store.resume_uri("train")
