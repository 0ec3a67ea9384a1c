"""Ingest: the files of a source that its annotations name, whole and checked, as an artifact.

The artifact holds the files under their names relative to the source's root, `files.jsonl` (path, size, sha256 of each)
`source.json` (which of them are annotations, and where the media of each lie) and, where there are some, `rejected.jsonl` (rows
that cannot be used: what they name is not there, or is outside of the source). Its digest depends on contents only;
modification times and etags, by which the next ingest knows what it need not fetch, stand in the manifest's counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from components.artifacts.artifact import Artifact, ArtifactWriter
from components.artifacts.context import StepContext
from components.ingest.arrival import FILES
from components.ingest.parts import Part, write_parts
from components.ingest.settings import IngestConfig
from components.ingest.sources.origin import Source


def run(settings: IngestConfig, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StepContext) -> None:
    """Bring the source's files into `out`. UserError when the source, its annotations or a path in them is wrong."""
    source: Source = settings.source
    parts = source.bring(settings.image_column, out, context)
    write_list(parts, out)


def write_list(parts: Sequence[Part], out: ArtifactWriter) -> None:
    """Write `source.json` and `files.jsonl`, the same bytes for the same contents."""
    files = out.recorded_files()
    out.counts["bytes"] = sum(entry["size"] for entry in files.values())
    write_parts(parts, out)
    with out.open(FILES, "w") as file:
        for line in _lines(files.items()):
            file.write(line)


def _lines(files: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
    for name, entry in files:
        yield json.dumps({"path": name, "size": entry["size"], "sha256": entry["sha256"]}, ensure_ascii=False) + "\n"
