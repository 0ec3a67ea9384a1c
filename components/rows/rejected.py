"""Rows that a step could not use, as its `rejected.jsonl` lists them: {file, line, reason, row}, with file and line as the user
knows them. The line of a Parquet file's row is its number, from 1."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import IO, Any

from components.artifacts.artifact import Artifact, ArtifactWriter
from components.rows.row import Rejected

REJECTED = "rejected.jsonl"


class RejectedList:
    """Writes the list of an ingest; there is no such file where no row was rejected."""

    def __init__(self, out: ArtifactWriter) -> None:
        self._out, self._open = out, contextlib.ExitStack()
        self._file: IO[Any] | None = None
        self.count = 0
        self.first: Rejected | None = None

    def add(self, reject: Rejected) -> None:
        if self._file is None:
            self._file, self.first = self._open.enter_context(self._out.open(REJECTED, "w")), reject
        self.count += 1
        self._file.write(reject.json_line())

    def said(self) -> str:
        """`3 rejected, such as labels.csv:17: no such file`."""
        first = self.first
        return f"{self.count} rejected" + (f", such as {first.file}:{first.line}: {first.reason}" if first else "")

    def __enter__(self) -> RejectedList:
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)


def read_rejects(raw: Artifact) -> dict[str, dict[int, Rejected]]:
    """File -> line -> what the ingest rejected there."""
    found: dict[str, dict[int, Rejected]] = {}
    if REJECTED in raw.files:
        with raw.open(REJECTED) as lines:
            for line in lines:
                reject = Rejected(**json.loads(line))
                found.setdefault(reject.file, {})[reject.line] = reject
    return found


def reasons(rejects: Mapping[int, Rejected]) -> dict[int, str]:
    return {line: reject.reason for line, reject in rejects.items()}
