"""`source.json` of an ingest: its annotation files, and below which folder of the artifact lie the media that each names."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from components.artifacts import Artifact, ArtifactWriter

SOURCE = "source.json"


@dataclass(frozen=True)
class Part:
    """One annotation file. `source` is the name of its data set, where it has one: it makes ids unique and is kept.

    `roots` are the ways in which absolute paths in its rows spell the root of the media; none where there are no such paths.
    """

    annotations: str
    media: str = ""
    source: str | None = None
    roots: tuple[str, ...] = ()

    def media_path(self, name: str) -> str:
        """Where in the artifact a file lies that a row names."""
        return posixpath.join(self.media, name)


def write_parts(parts: Sequence[Part], out: ArtifactWriter) -> None:
    out.write_json(SOURCE, {"parts": [asdict(part) for part in parts]})


def read_parts(raw: Artifact) -> list[Part]:
    """The parts of an ingest, in the order in which their rows count."""
    return [Part(**part) for part in raw.read_json(SOURCE)["parts"]]
