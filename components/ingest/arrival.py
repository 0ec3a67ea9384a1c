"""Files of an opened source go into the artifact: those that the annotations name, and only what has changed is fetched."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from components.artifacts.artifact import Artifact, ArtifactWriter
from components.artifacts.context import StepContext
from components.artifacts.files import filesystem
from components.errors import UserError
from components.ingest.named import Named
from components.ingest.parts import SOURCE, Part
from components.ingest.sources.origin import Head, Origin, SourceFile
from components.ingest.takeover import PARALLEL, take_over, unchanged
from components.media_files.path import OutsideRoot, path_below
from components.rows.rejected import REJECTED, RejectedList

FILES = "files.jsonl"


def bring_in(
    origin: Origin, parts: Sequence[Part], image_column: str, out: ArtifactWriter, context: StepContext
) -> list[Part]:
    """Put the annotation files and every file that their rows name into `out`, fetching only what has changed.

    Rows that name what is not there, or lies outside, are listed in `rejected.jsonl`.
    """
    labels = [annotation_file(origin, part) for part in parts]
    previous = None if context.fresh else context.previous
    fetched = place(origin, labels, out, previous, context)
    with RejectedList(out) as rejects:
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


def close_count(rows: int, rejects: RejectedList, out: ArtifactWriter, context: StepContext) -> None:
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
        if file.path in (FILES, SOURCE, REJECTED):
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


def annotations_below(annotations: str) -> str:
    """The path of the annotations relative to the source. UserError when they lie outside."""
    try:
        return path_below(annotations)
    except OutsideRoot as error:
        raise UserError(f"ingest.source.annotations: {error}") from None


def head_of(place: str, annotations: str, most: int) -> Head | None:
    """The first bytes of an annotation file of a folder or a bucket; None when it cannot be read, which the ingest says."""
    uri = f"{place}/{annotations}"
    try:
        if "://" not in uri:
            with Path(uri).expanduser().open("rb") as file:
                return Head(annotations, file.read(most))
        fs, path = filesystem(uri)
        return Head(annotations, fs.cat_file(path, 0, most))
    except Exception:  # OSError, botocore
        return None
