"""Convert: the annotation rows of an ingest as conversations, split into train and test.

The artifact holds `train.jsonl`, `test.jsonl` (records in the order of the rows), `rejects.jsonl` (file, line, reason, row
of what did not become a record) and `media.json` (the digest of the media). Media stay where they are: records name them
relative to the root that the manifest's link `media` names.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from components.artifacts import Artifact, ArtifactWriter
from components.config import ConvertConfig, PipelineConfig
from components.context import StepContext
from components.convert.records import Reject, read_records
from components.convert.split import repeated, split
from components.errors import UserError
from components.ingest.parts import Part, read_parts

SHOWN_REJECTS = 3


def run(config: PipelineConfig, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StepContext) -> None:
    """Write the records of `inputs["raw"]`. UserError when there are none, or more rejects than the config allows."""
    raw, settings = inputs["raw"], config.convert
    rows = []
    for part in read_parts(raw):
        with raw.open(part.annotations) as stream:
            found = list(read_records(stream, part, settings))
        require_some(found, part)
        rows += found
    rejects = [row for row in rows if isinstance(row, Reject)]
    records = [row for row in rows if not isinstance(row, Reject)]
    check(rows, rejects, settings)

    contents = [shown_by(record, raw) for record in records]
    held_out = split(contents, settings.test_fraction, settings.split_seed)
    train = [record for record, test in zip(records, held_out, strict=True) if not test]
    test = [record for record, test in zip(records, held_out, strict=True) if test]
    write_lines(out, "train.jsonl", train)
    write_lines(out, "test.jsonl", test)
    write_lines(out, "rejects.jsonl", map(asdict, rejects))
    out.write_json("media.json", {"digest": raw.digest})
    out.links["media"] = raw.uri
    pictures = [tuple(digests) for record, digests in zip(records, contents, strict=True) if record.get("image")]
    out.counts.update(
        rows=len(rows),
        train=len(train),
        test=len(test),
        rejected=len(rejects),
        duplicates_of_images=repeated(pictures),
    )
    context.progress(f"{len(train)} records to train on, {len(test)} held out, {len(rejects)} rejected")


def require_some(rows: list[Any], part: Part) -> None:
    """Raise UserError when an annotation file has nothing to learn from."""
    if not rows:
        raise UserError(f"{part.annotations} has no rows")
    if all(isinstance(row, Reject) for row in rows):
        raise UserError(f"{part.annotations}: all {len(rows)} rows rejected: {shown(rows)}")


def check(rows: list[Any], rejects: list[Reject], config: ConvertConfig) -> None:
    """Raise UserError when too much was rejected."""
    if len(rejects) > config.max_bad_fraction * len(rows):
        raise UserError(
            f"{len(rejects)} of {len(rows)} rows rejected, more than convert.max_bad_fraction="
            f"{config.max_bad_fraction:g} allows: {shown(rejects)}"
        )


def shown(rejects: list[Reject]) -> str:
    return "; ".join(f"{reject.file}:{reject.line}: {reject.reason}" for reject in rejects[:SHOWN_REJECTS])


def shown_by(record: Mapping[str, Any], raw: Artifact) -> list[str]:
    """Digests of what a record shows: its media's contents, a missing one's path, or its id when it is text only."""
    media = record.get("image") or record.get("video") or []
    names = [media] if isinstance(media, str) else media
    return [raw.files[name]["sha256"] if name in raw.files else f"missing {name}" for name in names] or [
        f"text {record['id']}"
    ]


def write_lines(out: ArtifactWriter, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
    with out.open(name, "w") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
