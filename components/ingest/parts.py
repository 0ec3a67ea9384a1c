"""`source.json` of an ingest: its annotation files, and below which folder of the artifact lie the media that each names."""

from __future__ import annotations

import bisect
import posixpath
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from components.artifacts.artifact import Artifact, ArtifactWriter

SOURCE = "source.json"


@dataclass(frozen=True)
class Part:
    """One annotation file. `source` is the name of its data set, where it has one: it makes ids unique and is kept.

    `places` says where its lines come from, where it was made of other files: from line `places[n][0]` on, line and row go on
    from row `places[n][2]` of file `places[n][1]`, all from 1.

    `roots` are the ways in which absolute paths in its rows spell the root of the media; none where there are no such paths.
    """

    annotations: str
    media: str = ""
    source: str | None = None
    roots: tuple[str, ...] = ()
    places: tuple[tuple[int, str, int], ...] = ()

    def place(self, line: int) -> tuple[str, int]:
        """The user's file and line (of Parquet: row) of a line of the annotations."""
        after = bisect.bisect_right(self.places, line, key=lambda place: place[0])
        if not after:
            return self.annotations, line
        first, file, row = self.places[after - 1]
        return file, row + line - first

    def media_path(self, name: str) -> str:
        """Where in the artifact a file lies that a row names."""
        return posixpath.join(self.media, name)


def write_parts(parts: Sequence[Part], out: ArtifactWriter) -> None:
    out.write_json(SOURCE, {"parts": [asdict(part) for part in parts]})


def read_parts(raw: Artifact) -> list[Part]:
    """The parts of an ingest, in the order in which their rows count."""

    def plain(value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    return [Part(**{key: plain(value) for key, value in part.items()}) for part in raw.read_json(SOURCE)["parts"]]
