"""Ingest: the files of a source that its annotations name, whole and checked, as an artifact.

The artifact holds the files under their names relative to the source's root, `files.jsonl` (path, size, sha256 of each)
`source.json` (which of them are annotations, and where the media of each lie) and, where there are some, `rejects.jsonl` (rows
that cannot be used: what they name is not there, or is outside of the source). Its digest depends on contents only;
modification times and etags, by which the next ingest knows what it need not fetch, stand in the manifest's counts.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from components.artifacts.artifact import Artifact, ArtifactWriter
from components.artifacts.context import StepContext
from components.errors import UserError
from components.ingest.named import Named
from components.ingest.parts import SOURCE, Part, write_parts
from components.ingest.rejects import REJECTS, RejectList
from components.ingest.settings import DigitsSource, FolderSource, IngestConfig, ParquetSource, PlmSource, S3Source
from components.ingest.sources.catalogue import RegistryOrigin, data_sets
from components.ingest.sources.digits import LABELS, write_digits
from components.ingest.sources.folder import FolderOrigin
from components.ingest.sources.origin import Origin, SourceFile
from components.ingest.sources.parquet import write_rows
from components.ingest.sources.s3 import S3Origin
from components.ingest.takeover import PARALLEL, take_over, unchanged
from components.media_files.path import OutsideRoot, path_below

FILES = "files.jsonl"


def run(settings: IngestConfig, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StepContext) -> None:
    """Bring the source's files into `out`. UserError when the source, its annotations or a path in them is wrong."""
    source = settings.source
    if isinstance(source, DigitsSource):
        parts = [digits(source, out, context)]
    elif isinstance(source, ParquetSource):
        parts = [write_rows(source, settings.image_column, out, context)]
    else:
        with opened(source, out, context) as (origin, parts):
            parts = bring_in(origin, parts, settings.image_column, out, context)
    write_list(parts, out)


def digits(source: DigitsSource, out: ArtifactWriter, context: StepContext) -> Part:
    """Write the digits; every one of them is a row."""
    count = write_digits(source, out, context.progress)
    out.counts.update(files=count + 1, fetched=count + 1, reused=0, rows=count, used=count, repaired=0, rejected=0)
    return Part(LABELS)


@contextlib.contextmanager
def opened(
    source: FolderSource | S3Source | PlmSource, out: ArtifactWriter, context: StepContext
) -> Iterator[tuple[Origin, Sequence[Part]]]:
    """The source and its parts, ready to be read; what an S3 ingest has fetched is kept until `out` is committed."""
    if isinstance(source, PlmSource):
        registered = RegistryOrigin(data_sets(source), source.check)
        yield registered, registered.parts
        return
    parts = [Part(annotations_below(source))]
    if isinstance(source, FolderSource):
        yield FolderOrigin(source.path, source.check), parts
        return
    origin = S3Origin(source, context.cache_dir)
    out.after_commit.append(origin.forget_unless_in_use)
    try:
        if context.fresh:
            origin.forget()
        yield origin, parts
    finally:
        origin.close()


def annotations_below(source: FolderSource | S3Source) -> str:
    """The path of the annotations relative to the source. UserError when they lie outside."""
    try:
        return path_below(source.annotations)
    except OutsideRoot as error:
        raise UserError(f"ingest.source.annotations: {error}") from None


def bring_in(
    origin: Origin, parts: Sequence[Part], image_column: str, out: ArtifactWriter, context: StepContext
) -> list[Part]:
    """Put the annotation files and every file that their rows name into `out`, fetching only what has changed.

    Rows that name what is not there, or lies outside, are listed in `rejects.jsonl`.
    """
    labels = [annotation_file(origin, part) for part in parts]
    previous = None if context.fresh else context.previous
    fetched = place(origin, labels, out, previous, context)
    with RejectList(out) as rejects:
        named = Named(origin, image_column, rejects)
        parts = [read_part(named, part, out) for part in parts]
    annotations = {part.annotations for part in parts}
    files = [file for file in named.files.values() if file.path not in annotations]
    fetched += place(origin, files, out, previous, context)
    files += labels
    out.counts.update(
        files=len(files),
        fetched=fetched,
        reused=len(files) - fetched,
        missing=len(named.missing),
        unreferenced=len(origin.files.keys() - {file.path for file in files}),
    )
    # No number, but the manifest is the one place outside the content's digest.
    out.counts["source_state"] = {"uri": origin.uri, "versions": {file.path: file.version for file in files}}
    close_count(named.rows, rejects, out, context)
    return parts


def read_part(named: Named, part: Part, out: ArtifactWriter) -> Part:
    with out.fs.open(f"{out.path}/{part.annotations}", "rb") as raw:
        return named.read(raw, part)


def close_count(rows: int, rejects: RejectList, out: ArtifactWriter, context: StepContext) -> None:
    """Say and record what became of the rows: rows = used + repaired + rejected."""
    out.counts.update(rows=rows, used=rows - rejects.count, repaired=0, rejected=rejects.count)
    context.progress(f"{rows} rows, {rejects.said()}")


def annotation_file(origin: Origin, part: Part) -> SourceFile:
    """The annotation file of a part. UserError when there is none, or when it lies outside."""
    try:
        file = origin.find(part.annotations)
    except OutsideRoot as error:
        raise UserError(f"ingest.source.annotations: {error}") from None
    if file is None:
        raise UserError(f"{origin.uri}/{part.annotations}: no such file; ingest.source.annotations names it")
    return file


def place(
    origin: Origin,
    files: Sequence[SourceFile],
    out: ArtifactWriter,
    previous: Artifact | None,
    context: StepContext,
) -> int:
    """Put files into `out`, from the previous artifact where they are unchanged; how many were fetched."""
    for file in files:
        if file.path in (FILES, SOURCE, REJECTS):
            raise UserError(f"{origin.uri}/{file.path}: this name is taken in the artifact; rename the file")
    kept = take_over(out, previous, unchanged(previous, origin.uri, files)) if previous else set()
    changed = [file for file in files if file.path not in kept]
    total, received = sum(file.size for file in changed), 0

    def report(size: int) -> None:
        nonlocal received
        received += size
        context.progress(f"{received / 1e6:.1f} of {total / 1e6:.1f} MB, {len(changed)} new or changed files")

    with ThreadPoolExecutor(PARALLEL) as pool:
        list(pool.map(lambda item: put(item[1], item[0].path, out, origin.disposable), origin.fetch(changed, report)))
    return len(changed)


def put(path: Path, name: str, out: ArtifactWriter, link: bool) -> None:
    """A local file into the artifact; with `link`, both may share the bytes on the disk."""
    if link and "://" not in out.uri:
        target = Path(out.path, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):  # another disk, or one that has no links
            os.link(path, target)
            return
    out.add_file(path, name)


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
