"""An annotation row becomes a record of `dataset.jsonl`, or a `Rejected` with the reason.

Its format (`components.formats`) knows its files and how it is read, `components.convert.ways` which of its texts are the
conversation.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import IO, Any

from components.convert.ids import row_digest
from components.convert.sides import Place, place_of
from components.convert.ways import Ways
from components.errors import Unusable, UserError
from components.formats.format import Way
from components.formats.known import format_of
from components.ingest.parts import Part
from components.media_files.path import OutsideRoot
from components.rows.annotations import read_rows
from components.rows.media_keys import names_a_picture, unread_media
from components.rows.row import Rejected, Row, cut, keys_of
from plm_model.records.record import GptRoleError, RecordError, parse_id, parse_record
from plm_model.records.turns import TagError, exchanges_of

FROM_LINE = "from_line"  # the key of a record that says which line of the user's file it was
SHOWN_REASON = 400  # characters


@dataclass(frozen=True)
class Converted:
    """A row as a record, with its place in the user's files, a digest of all that it says, and what was noticed about it."""

    record: dict[str, Any]
    place: tuple[str, int]
    digest: bytes
    notes: frozenset[str]
    goes: Place


def read_records(
    raw: IO[bytes], part: Part, ways: Ways, refused: Mapping[int, str] | None = None
) -> Iterator[Converted | Rejected]:
    """Each row of an annotation file, in order; media paths are those in the artifact.

    `refused` are lines that ingest rejected, with its reasons. Raises UserError for what concerns the whole file or the
    config: a missing column, a malformed template, the role `gpt` without convert.accept_gpt_role.
    """
    reasons = refused or {}

    def needed(columns: Collection[str]) -> list[str]:
        config = ways.config
        sides = [config.group_column, config.test.column if config.test else None]
        return [*ways.of(columns).columns, *(column for column in sides if column is not None)]

    for row in read_rows(raw, part.annotations, ways.image_column, needed):
        file, line = place = part.place(row.line)
        if isinstance(row, Rejected):
            yield replace(row, file=file, line=line)
        elif row.line in reasons:
            yield Rejected(file, line, reasons[row.line], row.values)
        else:
            try:
                yield converted(row, place, part, ways)
            except GptRoleError as error:
                raise UserError(f"{file}:{line}: {error}") from None
            except OutsideRoot as error:
                yield Rejected(file, line, str(error), row.values)
            except (RecordError, Unusable) as error:
                yield Rejected(file, line, cut(" ".join(str(error).split()), SHOWN_REASON), row.values)


def converted(row: Row, place: tuple[str, int], part: Part, ways: Ways) -> Converted:
    """One row as a record. RecordError, Unusable or OutsideRoot with the reason why it is none."""
    row = format_of(row.values).with_paths(row, ways.image_column, part.roots)
    digest = row_digest(json.dumps(row.values, sort_keys=True, ensure_ascii=False))
    way = ways.of([key for key, value in row.values.items() if value is not None])
    record, notes = to_record(row, digest, way, ways.config.accept_gpt_role)
    if part.source is not None:
        record |= {"id": f"{part.source}/{record['id']}", "source": part.source}
    unread = unread_media(row.values, ways.image_column)
    if "text_only" in notes:
        if unread:
            raise RecordError(
                f"no image or video is read, but `{unread[0]}` speaks of some; images must be paths in the column "
                f"{ways.image_column!r} (ingest.image_column)"
            )
        notes |= {"unread_path"} if names_a_picture(row.values) else set()
    elif unread:
        notes |= {"unread_media"}
    ways.counts[way.said] += 1
    file, line = place
    goes = place_of(ways.config, part, file, row.values)
    return Converted({**placed(record, part), FROM_LINE: f"{file}:{line}"}, place, digest, notes, goes)


def to_record(row: Row, digest: bytes, way: Way, accept_gpt_role: bool) -> tuple[dict[str, Any], frozenset[str]]:
    """The record of one row, and what was noticed about it. RecordError or Unusable with the reason why it is none."""
    try:
        record = way.format.record_of(row, id_of(row, digest, way), way)
        parsed = parse_record(record, accept_gpt_role=accept_gpt_role)
    except TagError as error:
        raise RecordError(f"{error}; {keys_of(row.values)}") from None
    if not exchanges_of(parsed.turns):
        raise RecordError("no question is followed by an answer")
    if isinstance(record.get("conversations"), list):
        record["conversations"] = [_renamed(turn) for turn in record["conversations"]]
    return record, parsed.notes


def placed(record: dict[str, Any], part: Part) -> dict[str, Any]:
    """The record with its media below the folder of its data set."""
    media = record.get("image")
    if media:
        inner = [part.media_path(name) for name in media] if isinstance(media, list) else part.media_path(media)
        record["image"] = inner
    if isinstance(record.get("video"), str):
        record["video"] = part.media_path(record["video"])
    return record


def id_of(row: Row, digest: bytes, way: Way) -> str:
    """The row's own id; without one, what it shows first and a digest of all that it says."""
    if row.values.get("id") not in (None, ""):
        return parse_id(row.values["id"])
    stem = next(iter(way.format.media_of(row, way.image_column)), "text")
    return f"{stem}#{digest.hex()[:12]}"


def _renamed(turn: Mapping[str, Any]) -> dict[str, Any]:
    return {**turn, "from": "assistant"} if turn["from"] == "gpt" else dict(turn)
