"""What a format is: a module of this room with these four functions, and a line in `components.formats.known`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from components.formats.templates import Template
from components.rows.row import Row


class Format(Protocol):
    """A written form of a row. Ingest asks for the files that a row shows, convert for its record."""

    def takes(self, values: Mapping[str, Any]) -> bool:
        """Whether a row with these values is written so."""

    def with_paths(self, row: Row, image_column: str, roots: Sequence[str] = ()) -> Row:
        """The row with its files' names as paths below the data root; `roots` are spellings of it. OutsideRoot for others."""

    def media_of(self, row: Row, image_column: str) -> list[str]:
        """The files that a row shows, each once."""

    def record_of(self, row: Row, id: str, way: Way) -> dict[str, Any]:
        """The record of a row `with_paths`. Unusable with the reason why it is none."""


@dataclass(frozen=True)
class Way:
    """How a row becomes a conversation: by which format and, where columns are filled in, with what. `said` tells it."""

    said: str
    format: Format
    image_column: str
    answer: Template | None = None
    question_column: str | None = None
    questions: tuple[str, ...] = ()

    @property
    def columns(self) -> Sequence[str]:
        """The columns that it needs beside the media's."""
        if self.answer is None:
            return ()
        return (*([self.question_column] if self.question_column else []), *self.answer.columns)
