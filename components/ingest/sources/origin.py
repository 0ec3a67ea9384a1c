"""What the step needs of a source, whatever its kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from components.ingest.parts import Part


@dataclass(frozen=True)
class SourceFile:
    """A file of a source: path relative to its root, bytes, and a version that changes when the content may have."""

    path: str
    size: int
    version: str


class Origin(Protocol):
    """An opened source."""

    uri: str
    files: Mapping[str, SourceFile]
    disposable: bool  # whether the fetched local files are ours, so that an artifact may take them by a hard link

    def roots(self, part: Part) -> tuple[str, ...]:
        """How absolute paths or URIs in the rows of a part spell the root of its media."""

    def find(self, name: str) -> SourceFile | None:
        """The file of that name, None if there is none; OutsideRoot if it lies outside."""

    def fetch(self, files: Sequence[SourceFile], report: Callable[[int], None]) -> Iterator[tuple[SourceFile, Path]]:
        """Each file with a local copy of it; `report` gets the number of bytes of each transfer."""
