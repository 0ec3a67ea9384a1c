"""What the tests of the components share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.artifacts.artifact import Artifact, StepKey
from components.artifacts.context import StepContext
from components.artifacts.store import ArtifactStore
from components.pipeline.config import PipelineConfig
from components.pipeline.steps import STEPS

Chain = Callable[..., tuple[Artifact, Artifact]]


class RecordingTracker:
    """A tracker that keeps nothing anywhere but in itself."""

    run_id = None

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}
        self.files: list[str] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None, at: int | None = None) -> None:
        self.metrics.update(metrics)

    def log_params(self, params: dict[str, Any]) -> None: ...

    def log_file(self, path: str | Path, folder: str | None = None) -> None:
        self.files.append(Path(path).name)

    def tag(self, key: str, value: str) -> None: ...


@pytest.fixture
def step_context(tmp_path: Path) -> Callable[..., StepContext]:
    """Builds a StepContext below tmp_path; keyword arguments replace its fields."""

    def build(**fields: Any) -> StepContext:
        defaults = {
            "tracker": RecordingTracker(),
            "progress": lambda text: None,
            "cache_dir": tmp_path / "cache",
            "resume_uri": str(tmp_path / "resume"),
        }
        return StepContext(**{**defaults, **fields})

    return build


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    """An empty store on a disk, then one on an object store; most tests have one of their own."""
    if request.param == "local":
        return ArtifactStore(str(tmp_path / "runs"), tmp_path / "cache")
    bucket = request.getfixturevalue("s3_bucket")
    return ArtifactStore(f"s3://{bucket}/runs", tmp_path / "cache")


@pytest.fixture
def ingested(tmp_path: Path, step_context: Callable[..., StepContext]) -> Chain:
    """Ingests a source and converts it, each call under new keys: (raw, dataset). Nothing is held out; all may be rejected."""
    from components.convert.step import run as convert
    from components.ingest.step import run as ingest

    store = ArtifactStore(str(tmp_path / "runs"), tmp_path / "cache")
    calls = 0

    def go(
        source: dict[str, Any], said: Callable[[str], None] | None = None, **settings: Any
    ) -> tuple[Artifact, Artifact]:
        nonlocal calls
        calls += 1
        lenient = {"test_fraction": 0, "max_bad_fraction": 1}
        config = PipelineConfig.model_validate({"ingest": {"source": source}, "convert": lenient | settings})
        keys = [StepKey(step, config={"call": calls}) for step in ("ingest", "convert")]
        context = step_context(progress=said) if said else step_context()
        with store.create(keys[0]) as out:
            ingest(config.ingest, {}, out, context)
        raw = store.find(keys[0])
        with store.create(keys[1]) as out:
            convert(STEPS["convert"].settings(config), {"raw": raw}, out, context)
        return raw, store.find(keys[1])

    return go
