"""Which files the rows of the annotations name, and which rows cannot be used: each row is one or the other, and counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import IO

from components.errors import Unusable
from components.formats.known import format_of
from components.ingest.nearest import Nearest
from components.ingest.parts import Part
from components.ingest.sources.origin import Origin, SourceFile
from components.media_files.path import OutsideRoot, shown
from components.rows.annotations import read_rows
from components.rows.rejected import RejectedList
from components.rows.row import Rejected


@dataclass
class Named:
    """What the rows that were read so far name: files by their path in the artifact, and names that no file has."""

    origin: Origin
    image_column: str
    rejects: RejectedList
    rows: int = 0
    files: dict[str, SourceFile] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)  # path in the artifact -> what is said of it

    def read(self, raw: IO[bytes], part: Part) -> Part:
        """Read an annotation file; the part, with the roots that its absolute paths need to be understood.

        Rows that cannot be used go to the list of rejects. UserError when the whole file cannot be read.
        """
        roots, used = self.origin.roots(part), False
        nearest = Nearest(NamesBelow(self.origin, part))
        for row in read_rows(raw, f"{self.origin.uri}/{part.annotations}", self.image_column):
            self.rows += 1
            if isinstance(row, Rejected):
                self.rejects.add(replace(row, file=part.annotations))
                continue
            format = format_of(row.values)
            written = format.media_of(row, self.image_column)
            try:
                row = format.with_paths(row, self.image_column, roots)
                self._find(format.media_of(row, self.image_column), part, nearest)
            except (OutsideRoot, Unusable) as error:
                self.rejects.add(Rejected(part.annotations, row.line, str(error), row.values))
                continue
            used = used or any(name.startswith("/") or "://" in name for name in written)
        return replace(part, roots=roots if used else ())

    def _find(self, names: Sequence[str], part: Part, nearest: Nearest) -> None:
        """Remember the files that a row names, all of them or, with an error, none."""
        found: dict[str, SourceFile] = {}
        for name in names:
            path = part.media_path(name)
            file = self.files.get(path) or (None if path in self.missing else self.origin.find(path))
            if file is None:
                if path not in self.missing:
                    self.missing[path] = f"{shown(name)}: no such file{nearest.hint(name)}"
                raise Unusable(self.missing[path])
            found[path] = file
        self.files |= found


class NamesBelow:
    """The names that rows of a part may use, listed anew at each look."""

    def __init__(self, origin: Origin, part: Part) -> None:
        self.origin, self.start = origin, f"{part.media}/" if part.media else ""

    def __iter__(self) -> Iterator[str]:
        return (path[len(self.start) :] for path in self.origin.files if path.startswith(self.start))
