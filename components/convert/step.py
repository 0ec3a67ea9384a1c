"""Convert: the annotation rows of an ingest as conversations, split into train and test.

The artifact holds `train.jsonl`, `test.jsonl` (records in the order of the rows), `rejected.jsonl` (file, line, reason, row
of what did not become a record, what ingest rejected included), `noted.json` (what was noticed about the records, by kind) and
`media.json` (the digest of the media). Media stay where they are: records name them relative to the root that the manifest's
link `media` names. Every count closes: rows = used + repaired + rejected + other_splits_left_out.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from components.artifacts.artifact import Artifact, ArtifactWriter
from components.artifacts.context import StepContext
from components.convert.records import read_records
from components.convert.settings import ConvertConfig, ConvertSettings
from components.convert.sides import TEST, TRAIN
from components.convert.waiting import Waiting
from components.convert.ways import Ways
from components.errors import UserError
from components.ingest.parts import Part, read_parts
from components.noted import Noted
from components.rows.rejected import read_rejects, reasons
from components.rows.row import Rejected
from plm_model.records.record import SCHEMA

SHOWN_REJECTS = 3


@dataclass
class RowCounts:
    """How many rows there were, how many of them were rejected, and the first of those."""

    rows: int = 0
    rejected: int = 0
    first: list[Rejected] = field(default_factory=list)
    sides: Counter[str] = field(default_factory=Counter)  # rows of each side that the data themselves say

    def __add__(self, other: RowCounts) -> RowCounts:
        first = [*self.first, *other.first][:SHOWN_REJECTS]
        return RowCounts(self.rows + other.rows, self.rejected + other.rejected, first, self.sides + other.sides)

    @property
    def left_out(self) -> dict[str, int]:
        """Rows of splits that are neither trained on nor held out."""
        return {side: count for side, count in self.sides.items() if side not in (TEST, TRAIN)}


@dataclass
class Written:
    """How many records were written to each side, how many equal rows were left out, and what was noticed about the rest."""

    train: int = 0
    test: int = 0
    dropped: int = 0
    noted: Noted = field(default_factory=Noted)


def run(given: ConvertSettings, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StepContext) -> None:
    """Write the records of `inputs["raw"]`. UserError when there are none, or more rejects than the config allows."""
    raw, settings = inputs["raw"], given.convert
    out.schema = SCHEMA
    context.cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=context.cache_dir) as file, out.open("rejected.jsonl", "w") as rejects:
        waiting = Waiting(file, settings.split_seed)
        tally = read_parts_of(raw, given, waiting, rejects, context)
        check(tally, settings)
        require_held_out(tally, settings)
        written = write_sides(out, waiting, settings, rejects)
    out.write_json("noted.json", written.noted.to_json())
    out.write_json("media.json", {"digest": raw.digest})
    out.links["media"] = raw.uri
    rejected, noted = tally.rejected + written.dropped, written.noted
    left_out = sum(tally.left_out.values())
    out.counts.update(
        rows=tally.rows,
        used=tally.rows - noted.repaired - rejected - left_out,
        repaired=noted.repaired,
        rejected=rejected,
        repeated_left_out=written.dropped,
        other_splits_left_out=left_out,
        train=written.train,
        test=written.test,
        duplicates_of_images=waiting.split.repeated(),
        **{f"noted_{kind}": count for kind, count in sorted(noted.counts.items())},
    )
    context.progress(last_line(tally, written))


def last_line(tally: RowCounts, written: Written) -> str:
    """`90 records to train on, 8 held out, 3 repaired, 2 rejected; 12 text only, such as rows.jsonl:4`."""
    parts = [f"{written.train} records to train on", f"{written.test} held out"]
    parts += [f"{written.noted.repaired} repaired"] if written.noted.repaired else []
    parts += [f"{tally.rejected} rejected"]
    parts += [f"{written.dropped} equal rows left out"] if written.dropped else []
    parts += [f"{count} of {side} neither trained on nor held out" for side, count in sorted(tally.left_out.items())]
    first = f", such as {shown(tally.first[:1])}" if tally.first else ""
    return "; ".join(filter(None, (", ".join(parts) + first, written.noted.line())))


def read_parts_of(
    raw: Artifact, given: ConvertSettings, waiting: Waiting, rejects: Any, context: StepContext
) -> RowCounts:
    """Read all annotation files; what was decided about each is said."""
    refused, parts = read_rejects(raw), read_parts(raw)
    known = {part.annotations: reasons(refused.pop(part.annotations, {})) for part in parts}
    tally = read_refused(refused, rejects)
    for part in parts:
        ways = Ways(given.convert, given.image_column, part.source is not None)
        found = read_part(raw, part, ways, waiting, rejects, known[part.annotations])
        require_some(found if found.rows else tally, part)
        if ways.counts:
            context.progress(ways.line(part.annotations))
        tally += found
    return tally


def read_part(
    raw: Artifact, part: Part, ways: Ways, waiting: Waiting, rejects: Any, refused: Mapping[int, str]
) -> RowCounts:
    """Read one annotation file: its records to those that wait, its rejects to their file."""
    tally = RowCounts()
    with raw.open(part.annotations) as stream:
        for row in read_records(stream, part, ways, refused):
            tally.rows += 1
            if isinstance(row, Rejected):
                tally.rejected += 1
                tally.first += [row] if len(tally.first) < SHOWN_REJECTS else []
                rejects.write(row.json_line())
                continue
            if row.goes.side is not None:
                tally.sides[row.goes.side] += 1
            if not row.goes.left_out:
                waiting.add(row, shown_by(row.record, raw))
    return tally


def read_refused(refused: Mapping[str, Mapping[int, Rejected]], rejects: Any) -> RowCounts:
    """Pass on what ingest rejected of files that it did not bring in as they are: rows of Parquet files."""
    found = [reject for lines in refused.values() for reject in lines.values()]
    for reject in found:
        rejects.write(reject.json_line())
    return RowCounts(len(found), len(found), found[:SHOWN_REJECTS])


def write_sides(out: ArtifactWriter, waiting: Waiting, settings: ConvertConfig, rejects: Any) -> Written:
    """Each record to its side; where equal rows are dropped, those to the rejects."""
    written = Written()
    with out.open("train.jsonl") as train, out.open("test.jsonl") as test:
        for record in waiting.settled(settings.test_fraction):
            if record.equal and settings.repeated == "drop":
                reason = "equal to an earlier row; convert.repeated=drop leaves it out"
                rejects.write(Rejected(*record.place, reason, json.loads(record.line)).json_line())
                written.dropped += 1
                continue
            (test if record.held_out else train).write(record.line)
            written.test += record.held_out
            written.train += not record.held_out
            written.noted.add(record.notes, "{}:{}".format(*record.place))
    return written


def require_some(tally: RowCounts, part: Part) -> None:
    """Raise UserError when an annotation file has nothing to learn from."""
    if not tally.rows:
        raise UserError(f"{part.annotations} has no rows")
    if tally.rejected == tally.rows:
        raise UserError(f"{part.annotations}: all {tally.rows} rows rejected: {shown(tally.first)}")


def require_held_out(tally: RowCounts, config: ConvertConfig) -> None:
    """Raise UserError when what is to be held out is not there, or nothing is left to train on."""
    if config.test is None:
        return
    what = f"split={config.test.split}" if config.test.split is not None else f"source={config.test.source}"
    known = ", ".join(f"{count} rows of {side}" for side, count in sorted(tally.sides.items())) or "no rows"
    for side, told in (
        (TEST, f"convert.test.{what}: no row is of it"),
        (TRAIN, f"convert.test.{what}: is all there is"),
    ):
        if not tally.sides[side]:
            raise UserError(f"{told}; there are {known}. Does the source read the files of both splits?")


def check(tally: RowCounts, config: ConvertConfig) -> None:
    """Raise UserError when too much was rejected."""
    if tally.rejected > config.max_bad_fraction * tally.rows:
        raise UserError(
            f"{tally.rejected} of {tally.rows} rows rejected, more than convert.max_bad_fraction="
            f"{config.max_bad_fraction:g} allows: {shown(tally.first)}"
        )


def shown(rejects: list[Rejected]) -> str:
    return "; ".join(f"{reject.file}:{reject.line}: {reject.reason}" for reject in rejects)


def shown_by(record: Mapping[str, Any], raw: Artifact) -> list[str]:
    """Digests of what a record shows: its media's contents, a missing one's path, or its id when it is text only."""
    media = record.get("image") or record.get("video") or []
    names = [media] if isinstance(media, str) else media
    return [raw.files[name]["sha256"] if name in raw.files else f"missing {name}" for name in names] or [
        f"text {record['id']}"
    ]
