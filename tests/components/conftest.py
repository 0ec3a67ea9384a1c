"""What the tests of the components share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.context import StepContext


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
