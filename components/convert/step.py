"""Convert: the annotation rows of an ingest as conversations, split into train and test.

The artifact holds `train.jsonl`, `test.jsonl` (records in the order of the rows), `rejects.jsonl` (file, line, reason, row
of what did not become a record, what ingest rejected included) and `media.json` (the digest of the media). Media stay where
they are: records name them relative to the root that the manifest's link `media` names.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from components.artifacts import Artifact, ArtifactWriter
from components.config import ConvertConfig, PipelineConfig
from components.context import StepContext
from components.convert.records import read_records
from components.convert.split import Split
from components.errors import UserError
from components.ingest.parts import Part, read_parts
from components.ingest.rejects import Reject, read_rejects, reasons

SHOWN_REJECTS = 3


@dataclass
class Tally:
    """How many rows there were, how many of them were rejected, and the first of those."""

    rows: int = 0
    rejected: int = 0
    first: list[Reject] = field(default_factory=list)

    def __add__(self, other: Tally) -> Tally:
        first = [*self.first, *other.first][:SHOWN_REJECTS]
        return Tally(self.rows + other.rows, self.rejected + other.rejected, first)


def run(config: PipelineConfig, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StepContext) -> None:
    """Write the records of `inputs["raw"]`. UserError when there are none, or more rejects than the config allows."""
    raw, settings = inputs["raw"], config.convert
    split, tally = Split(settings.split_seed), Tally()
    context.cache_dir.mkdir(parents=True, exist_ok=True)
    # A record's side is known when all have been seen; until then they wait on the disk, not in memory.
    with tempfile.TemporaryFile(dir=context.cache_dir) as waiting:
        with out.open("rejects.jsonl", "w") as rejects:
            refused, parts = read_rejects(raw), read_parts(raw)
            known = {part.annotations: reasons(refused.pop(part.annotations, {})) for part in parts}
            tally += read_refused(refused, rejects)
            for part in parts:
                found = read_part(raw, part, settings, split, waiting, rejects, known[part.annotations])
                require_some(found if found.rows else tally, part)
                tally += found
        check(tally, settings)
        held_out = split.held_out(settings.test_fraction)
        waiting.seek(0)
        write_sides(out, waiting, held_out)
    out.write_json("media.json", {"digest": raw.digest})
    out.links["media"] = raw.uri
    test = int(held_out.sum())
    train = len(held_out) - test
    out.counts.update(
        rows=tally.rows, train=train, test=test, rejected=tally.rejected, duplicates_of_images=split.repeated()
    )
    context.progress(f"{train} records to train on, {test} held out, {tally.rejected} rejected")


def read_part(
    raw: Artifact,
    part: Part,
    settings: ConvertConfig,
    split: Split,
    records: IO[bytes],
    rejects: Any,
    refused: Mapping[int, str],
) -> Tally:
    """Read one annotation file: its records and rejects to their files as JSON lines, what the records show to `split`."""
    tally = Tally()
    with raw.open(part.annotations) as stream:
        for row in read_records(stream, part, settings, refused):
            tally.rows += 1
            if isinstance(row, Reject):
                tally.rejected += 1
                tally.first += [row] if len(tally.first) < SHOWN_REJECTS else []
                rejects.write(row.json_line())
                continue
            split.add(shown_by(row, raw), pictured=bool(row.get("image")))
            records.write(json_line(row).encode())
    return tally


def read_refused(refused: Mapping[str, Mapping[int, Reject]], rejects: Any) -> Tally:
    """Pass on what ingest rejected of files that it did not bring in as they are: rows of Parquet files."""
    found = [reject for lines in refused.values() for reject in lines.values()]
    for reject in found:
        rejects.write(reject.json_line())
    return Tally(len(found), len(found), found[:SHOWN_REJECTS])


def write_sides(out: ArtifactWriter, records: Iterable[bytes], held_out: Iterable[bool]) -> None:
    """Each line to its side."""
    with out.open("train.jsonl") as train, out.open("test.jsonl") as test:
        for line, is_test in zip(records, held_out, strict=True):
            (test if is_test else train).write(line)


def require_some(tally: Tally, part: Part) -> None:
    """Raise UserError when an annotation file has nothing to learn from."""
    if not tally.rows:
        raise UserError(f"{part.annotations} has no rows")
    if tally.rejected == tally.rows:
        raise UserError(f"{part.annotations}: all {tally.rows} rows rejected: {shown(tally.first)}")


def check(tally: Tally, config: ConvertConfig) -> None:
    """Raise UserError when too much was rejected."""
    if tally.rejected > config.max_bad_fraction * tally.rows:
        raise UserError(
            f"{tally.rejected} of {tally.rows} rows rejected, more than convert.max_bad_fraction="
            f"{config.max_bad_fraction:g} allows: {shown(tally.first)}"
        )


def shown(rejects: list[Reject]) -> str:
    return "; ".join(f"{reject.file}:{reject.line}: {reject.reason}" for reject in rejects)


def shown_by(record: Mapping[str, Any], raw: Artifact) -> list[str]:
    """Digests of what a record shows: its media's contents, a missing one's path, or its id when it is text only."""
    media = record.get("image") or record.get("video") or []
    names = [media] if isinstance(media, str) else media
    return [raw.files[name]["sha256"] if name in raw.files else f"missing {name}" for name in names] or [
        f"text {record['id']}"
    ]


def json_line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
