"""`plm STEP`: a step by itself does what it does in the chain."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from components.artifacts.store import ArtifactStore
from components.errors import UserError
from components.pipeline.config import PipelineConfig
from flows.commands.step import run_single_step


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images with their labels."""
    data = tmp_path / "data"
    data.mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (8, 8)).save(data / f"{name}.png")
    (data / "labels.csv").write_text("image,label\na.png,1\nb.png,2\n")
    return data


@pytest.fixture
def config(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> PipelineConfig:
    """Tracking is off: what these tests look at lies in the store."""
    for name in ("PREFECT_HOME", "PREFECT_API_DATABASE_CONNECTION_URL"):  # a command would set them for its process
        monkeypatch.setenv(name, "")
    return PipelineConfig.model_validate(
        {
            "storage": {"root": str(tmp_path / "runs"), "cache_dir": str(tmp_path / "cache")},
            "tracking": {"uri": "http://127.0.0.1:9", "required": False, "state_dir": str(tmp_path / "state")},
            "ingest": {"source": {"kind": "folder", "path": str(folder)}},
        }
    )


def step(name: str, config: PipelineConfig) -> dict[str, object]:
    return run_single_step(name, config, False, None, None, None)


def test_ingest_by_itself_brings_in_only_what_changed(config: PipelineConfig, folder: Path) -> None:
    step("ingest", config)
    Image.new("RGB", (9, 9)).save(folder / "b.png")
    store = ArtifactStore(config.storage.root, config.storage.cache_dir)
    found = store.find_digest("ingest", str(step("ingest", config)["key"]))
    assert found is not None and (found.counts["reused"], found.counts["fetched"]) == (2, 1)


def test_a_job_that_does_not_see_the_flows_tracking_store_says_so(config: PipelineConfig, tmp_path: Path) -> None:
    store = config.tracking.model_copy(update={"uri": f"sqlite:///{tmp_path}/elsewhere/mlflow.db"})
    away = config.model_copy(update={"tracking": store})
    with pytest.raises(UserError, match=r"set tracking.uri=http"):
        run_single_step("ingest", away, False, "0" * 32, None, None)
    assert not (tmp_path / "elsewhere").exists() and not (tmp_path / "runs" / "artifacts").exists()
