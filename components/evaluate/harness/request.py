"""What the evaluation's process is asked to do, as a JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Request:
    """What to evaluate.

    `model` is a model directory of the weights `digest`; `documents` are the held-out questions, if any, and `columns` the
    benchmarks by name, as a suite describes them. Their data sets are looked for in the folder `data`, as OWNER/NAME, before
    the hub. Answers are kept below the URI `kept`; `result` is the file to write, `parent` the process that asked. `workers`
    above 1 are Ray actors, on the cluster at `ray_address` or a Ray of their own.
    """

    model: str
    digest: str
    task: str
    documents: str | None
    columns: Mapping[str, Mapping[str, Any]]
    include: tuple[str, ...]
    data: str | None
    offline: bool
    kept: str
    result: str
    scratch: str
    limit: int | None
    batch_size: int
    max_new_tokens: int
    device: str
    workers: int
    ray_address: str | None
    parent: int

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: str) -> Request:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        return cls(**{**values, "include": tuple(values["include"])})
