"""An annotation row becomes a record of `dataset.jsonl`, or a `Rejected` with the reason.

`components.convert.ways` decides which of its texts are the conversation, `components.ingest.media_keys` which files it shows.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

from components.convert.ids import row_digest
from components.convert.templates import MissingValue, choose_question, value_of
from components.convert.ways import Way, Ways
from components.errors import UserError
from components.ingest.media_keys import names_a_picture, unread_media
from components.ingest.media_rows import images_of, rows_with_paths
from components.ingest.parts import Part
from components.ingest.rejected import Rejected
from components.ingest.row import BadRow, Row, cut
from plm_model.records.record import GptRoleError, RecordError, parse_id, parse_record
from plm_model.records.turns import TagError, exchanges_of

# Keys of a record that a row with a plain question and answer may carry too.
MEDIA_KEYS = ("video", "start_time", "end_time", "bbox", "bbox_map", "width", "height")
FROM_LINE = "from_line"  # the key of a record that says which line of the user's file it was
ROLES = {"user": "human"}  # what others call them
SHOWN_KEYS = 12
SHOWN_REASON = 400  # characters


@dataclass(frozen=True)
class Converted:
    """A row as a record, with its place in the user's files, a digest of all that it says, and what was noticed about it."""

    record: dict[str, Any]
    place: tuple[str, int]
    digest: bytes
    notes: frozenset[str]


def read_records(
    raw: IO[bytes], part: Part, ways: Ways, refused: Mapping[int, str] | None = None
) -> Iterator[Converted | Rejected]:
    """Each row of an annotation file, in order; media paths are those in the artifact.

    `refused` are lines that ingest rejected, with its reasons. Raises UserError for what concerns the whole file or the
    config: a missing column, a malformed template, the role `gpt` without convert.accept_gpt_role.
    """
    image_column = ways.image_column

    def needed(columns: Collection[str]) -> list[str]:
        return list(ways.of(columns).columns)

    for row in rows_with_paths(raw, part.annotations, image_column, needed, part.roots, refused):
        place = part.place(row.line)
        if isinstance(row, BadRow):
            yield Rejected(*place, row.reason, row.text)
            continue
        try:
            yield converted(row, place, part, ways)
        except GptRoleError as error:
            raise UserError(f"{place[0]}:{place[1]}: {error}") from None
        except (RecordError, MissingValue) as error:
            yield Rejected(*place, cut(" ".join(str(error).split()), SHOWN_REASON), row.values)


def converted(row: Row, place: tuple[str, int], part: Part, ways: Ways) -> Converted:
    """One row as a record. RecordError or MissingValue with the reason why it is none."""
    digest = row_digest(json.dumps(row.values, sort_keys=True, ensure_ascii=False))
    way = ways.of([key for key, value in row.values.items() if value is not None])
    record, notes = to_record(row, digest, way, ways)
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
    return Converted({**placed(record, part), FROM_LINE: f"{file}:{line}"}, place, digest, notes)


def to_record(row: Row, digest: bytes, way: Way, ways: Ways) -> tuple[dict[str, Any], frozenset[str]]:
    """The record of one row, and what was noticed about it. RecordError or MissingValue with the reason why it is none."""
    try:
        record = _ready(row, digest, ways) if way.answer is None else _filled(row, digest, way, ways)
        parsed = parse_record(record, accept_gpt_role=ways.config.accept_gpt_role)
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


def keys_of(values: Mapping[str, Any]) -> str:
    """`its keys are 'conversations', 'picture'`."""
    shown = ", ".join(repr(key[:40]) for key in list(values)[:SHOWN_KEYS])
    return f"its keys are {shown}" + (", …" if len(values) > SHOWN_KEYS else "")


def _ready(row: Row, digest: bytes, ways: Ways) -> dict[str, Any]:
    """The record of a row that is a conversation."""
    values = {key: value for key, value in row.values.items() if value is not None or key not in ("image", "video")}
    images = values.pop(ways.image_column, None)
    names = images_of(row, ways.image_column)
    if images is not None and len(names) != (len(images) if isinstance(images, list) else 1):
        raise RecordError(f"`{ways.image_column}` must be a path or a list of paths")
    record: dict[str, Any] = {"id": _id(row.values, names, digest)}
    if images is not None:
        record["image"] = names if isinstance(images, list) else names[0]
    record |= {key: value for key, value in values.items() if key not in ("id", "image")}
    if "messages" in record and record.get("conversations") is None:
        record["conversations"] = record.pop("messages")
    if isinstance(record.get("conversations"), list):
        record["conversations"] = [_as_turn(turn) for turn in record["conversations"]]
    return record


def _filled(row: Row, digest: bytes, way: Way, ways: Ways) -> dict[str, Any]:
    """The record of a row whose columns are filled into the config's templates."""
    values, column = row.values, ways.image_column
    names = images_of(row, column)
    if not names and not values.get("video"):
        raise MissingValue(f"no image name in column {column!r}" + ("" if column in values else f": {keys_of(values)}"))
    if lacking := next((name for name in way.columns if name not in values), None):
        raise MissingValue(f"no text in column {lacking!r}: {keys_of(values)}")
    own = value_of(values, way.question_column) if way.question_column else None
    record: dict[str, Any] = {"id": _id(values, names, digest)}
    if names:
        record["image"] = names if isinstance(values[column], list) else names[0]
    # From CSV only the video's name is taken: a box or a time would be text.
    kept = [key for key in MEDIA_KEYS if key in values and (key == "video" or not isinstance(values[key], str))]
    record |= {key: values[key] for key in kept if values[key] is not None}
    question = own or choose_question(ways.config.questions, record["id"])
    assert way.answer is not None
    record["conversations"] = [
        {"from": "human", "value": question},
        {"from": "assistant", "value": way.answer.fill(values)},
    ]
    return record


def _id(values: Mapping[str, Any], names: list[str], digest: bytes) -> str:
    """The row's own id; without one, what it shows first and a digest of all that it says."""
    if values.get("id") not in (None, ""):
        return parse_id(values["id"])
    video = values.get("video")
    stem = names[0] if names else video if isinstance(video, str) and video else "text"
    return f"{stem}#{digest.hex()[:12]}"


def _as_turn(turn: Any) -> Any:
    """A turn with the keys and roles of ours, where it has those of others: `{"role": "user", "content": "…"}`."""
    if not isinstance(turn, Mapping):
        return turn
    names = {"role": "from", "content": "value"}
    found = {names.get(key, key) if names.get(key) not in turn else key: value for key, value in turn.items()}
    role = found.get("from")
    return found | {"from": ROLES.get(role, role)} if isinstance(role, str) else found


def _renamed(turn: Mapping[str, Any]) -> dict[str, Any]:
    return {**turn, "from": "assistant"} if turn["from"] == "gpt" else dict(turn)
