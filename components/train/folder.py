"""The folder of a training that is not finished: where its checkpoints lie, and what it leaves beside them for people."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CHECKPOINTS, PROFILES, METRICS = "checkpoints", "profiles", "metrics.jsonl"


@dataclass(frozen=True)
class TrainingFolder:
    """`uri` is absolute. Files that people touch to ask for something (`stop-now`, `checkpoint-now`, `profile`) lie in it."""

    uri: str

    @property
    def checkpoints(self) -> str:
        """Folder of the checkpoints, one folder each."""
        return f"{self.uri}/{CHECKPOINTS}"

    @property
    def rejected(self) -> str:
        """Folder of the examples that were not trained on, a file each."""
        return f"{self.uri}/skipped"

    @property
    def hangs(self) -> str:
        """Folder of the reports of ranks that hung."""
        return f"{self.uri}/hangs"

    @property
    def profiles(self) -> str:
        """Folder of traces."""
        return f"{self.uri}/{PROFILES}"

    @property
    def live_metrics(self) -> Path | None:
        """The file that grows with each line of metrics; None on an object store, which does not append."""
        return None if "://" in self.uri else Path(self.uri, METRICS)
