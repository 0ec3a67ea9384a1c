"""Rows that a step could not use, as its `rejected.jsonl` lists them: {file, line, reason, row}, with file and line as the user
knows them. The line of a Parquet file's row is its number, from 1."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

from components.artifacts.artifact import Artifact, ArtifactWriter
from components.ingest.row import cut

REJECTED = "rejected.jsonl"
SHOWN_ROW = 10_000  # characters of a row in the list


@dataclass(frozen=True)
class Rejected:
    """A row that cannot be used; `row` is what was read, or the text of the line."""

    file: str
    line: int
    reason: str
    row: Any

    def json_line(self) -> str:
        """The line of the list; a row that is very long, or nested too deeply to be written, is cut."""
        try:
            text = json.dumps(self.row, ensure_ascii=False, default=str)
            text.encode("utf-8")  # half a surrogate pair is none
        except (RecursionError, UnicodeEncodeError):
            text = json.dumps(cut(f"{type(self.row).__name__} that cannot be shown"))
        if len(text) > SHOWN_ROW:
            text = json.dumps(cut(text), ensure_ascii=False)
        place = json.dumps({"file": self.file, "line": self.line, "reason": self.reason}, ensure_ascii=False)
        return f'{place[:-1]}, "row": {text}}}\n'


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
