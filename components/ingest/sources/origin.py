"""What the step needs of a source, whatever its kind.

A kind of source is one file beside this one: its settings, and what they can do. A line in `ingest/settings.py` registers it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Protocol

from pydantic import Field

from components.ingest.parts import Part

if TYPE_CHECKING:
    from components.artifacts.artifact import ArtifactWriter
    from components.artifacts.context import StepContext


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


Check = Annotated[
    Literal["times", "contents"],
    Field(
        description="how a changed file is known: by size and modification `times`, or by its `contents`, all of which are "
        "read at each start"
    ),
]


@dataclass(frozen=True)
class Head:
    """What can be seen of the annotations before they are brought in: the first bytes of a file, or its columns."""

    file: str
    data: bytes = b""
    columns: tuple[str, ...] = ()


class Source(Protocol):
    """The settings of a source. `on_disk`: its files are told apart by modification times, which a copy does not share."""

    on_disk: ClassVar[bool]

    def fingerprint(self) -> str:
        """A cheap digest of its state: when it is the same, so are the files. UserError when it cannot be listed."""

    def bring(self, image_column: str, out: ArtifactWriter, context: StepContext) -> list[Part]:
        """Put its files into `out`, whole and checked; the parts that they are. UserError for what is wrong with it."""

    def problems(self) -> Iterator[str]:
        """What is wrong with it, as far as a look from outside can tell. May raise UserError."""

    def head(self, most: int) -> Head | None:
        """At most so many bytes of its annotations, or their columns; None where that cannot be told."""


def digest_of_files(files: Iterable[SourceFile]) -> str:
    """Hex sha256 of names, sizes and versions."""
    sha = hashlib.sha256()
    for file in files:
        sha.update(f"{file.path}\0{file.size}\0{file.version}\n".encode("utf-8", "surrogateescape"))
    return sha.hexdigest()
