"""What a step may use beside its config and inputs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from components.artifacts.artifact import Artifact, ArtifactWriter


class Tracker(Protocol):
    """Records a step's metrics and files; none of these raises once the step runs.

    `at` is when the metrics were measured, in milliseconds since 1970; a point recorded twice counts once.
    """

    run_id: str | None

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None, at: int | None = None) -> None: ...
    def log_params(self, params: Mapping[str, Any]) -> None: ...
    def log_file(self, path: str | Path, folder: str | None = None) -> None: ...
    def tag(self, key: str, value: str) -> None: ...


@dataclass(frozen=True)
class StepContext:
    """What a step may use beside its config and inputs."""

    tracker: Tracker
    progress: Callable[[str], None]
    cache_dir: Path
    resume_uri: str  # stable for this step's key: where an interrupted attempt may leave what the next one resumes
    fresh: bool = False  # --refresh: whatever lies at resume_uri must not be resumed
    previous: Artifact | None = None  # the artifact that this step made in the last run of the same pipeline
    pipeline: str = ""  # what the pipeline is called, for people; in no file of the artifact
    kept_uri: str = ""  # where answers lie that any evaluation may use again; default: below cache_dir
    tags: Mapping[str, str] = field(default_factory=dict)  # links to the flow run, MLflow run and Ray job


def keep_files(out: ArtifactWriter, context: StepContext, files: Mapping[str, bytes]) -> None:
    """Write files to the artifact and to the tracker."""
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            path = Path(folder) / name
            path.write_bytes(data)
            out.add_file(path, name)
            context.tracker.log_file(path)
