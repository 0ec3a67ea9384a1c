"""An annotation row becomes a record of `dataset.jsonl`, or a `Reject` with the reason.

A row of a registered data set is one already, and one with `conversations` (or with `text`, or `question` and `answer`, where
there is no answer column); any other is filled into the question and answer templates.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import IO, Any

from components.config import ConvertConfig
from components.convert.templates import MissingValue, Template, choose_question, parse_template, value_of
from components.errors import UserError
from components.ingest.media_rows import images_of, rows_with_paths
from components.ingest.parts import Part
from components.ingest.rejects import Reject
from components.ingest.row import BadRow, Row
from plm_model.record import GptRoleError, RecordError, parse_id, parse_record

# Keys of a record that a row with a plain question and answer may carry too.
MEDIA_KEYS = ("video", "start_time", "end_time", "bbox", "bbox_map", "width", "height")


def read_records(
    raw: IO[bytes], part: Part, config: ConvertConfig, refused: Mapping[int, str] | None = None
) -> Iterator[dict[str, Any] | Reject]:
    """Each row of an annotation file, in order; media paths are those in the artifact.

    `refused` are lines that ingest rejected, with its reasons. Raises UserError for what concerns the whole file or the
    config: a missing column, a malformed template, the role `gpt` without convert.accept_gpt_role.
    """
    answer = parse_template(config.answer, {"answer": config.answer_column}, "convert.answer")
    columns = (*([config.question_column] if config.question_column else []), *answer.columns)
    file = part.annotations
    for row in rows_with_paths(raw, file, config.image_column, columns, part.roots, refused):
        if isinstance(row, BadRow):
            yield Reject(*part.place(row.line), row.reason, row.text)
            continue
        try:
            yield placed(to_record(row, answer, config, part.source is not None), part)
        except GptRoleError as error:
            where = ":".join(map(str, part.place(row.line)))
            raise UserError(f"{where}: {error}") from None
        except (RecordError, MissingValue) as error:
            yield Reject(*part.place(row.line), str(error), row.values)


def to_record(row: Row, answer: Template, config: ConvertConfig, registered: bool) -> dict[str, Any]:
    """The record of one row; one of a registered data set is one already.

    Raises RecordError or MissingValue with the reason.
    """
    said = "text" in row.values or {"question", "answer"} <= row.values.keys()
    if registered or "conversations" in row.values or (said and config.answer_column not in row.values):
        record = _ready(row, config)
    else:
        record = _filled(row, answer, config)
    parse_record(record)
    return record


def placed(record: dict[str, Any], part: Part) -> dict[str, Any]:
    """The record as one of its data set: media below the set's folder, an id that no other set has, the set's name."""
    media = record.get("image")
    if media:
        inner = [part.media_path(name) for name in media] if isinstance(media, list) else part.media_path(media)
        record["image"] = inner
    if isinstance(record.get("video"), str):
        record["video"] = part.media_path(record["video"])
    if part.source is not None:
        record |= {"id": f"{part.source}/{record['id']}", "source": part.source}
    return record


def _ready(row: Row, config: ConvertConfig) -> dict[str, Any]:
    values = dict(row.values)
    images = values.pop(config.image_column, None)
    said = values.get("conversations", values.get("text"))
    names = images_of(row, config.image_column)
    if images is not None and len(names) != (len(images) if isinstance(images, list) else 1):
        raise RecordError(f"`{config.image_column}` must be a path or a list of paths")
    record: dict[str, Any] = {"id": _id(values, names, row.values)}
    if images is not None:
        record["image"] = names if isinstance(images, list) else names[0]
    record |= {key: value for key, value in values.items() if key not in ("id", "image")}
    parse_record(record, accept_gpt_role=config.accept_gpt_role)
    if isinstance(said, list):
        record["conversations"] = [_renamed(turn) for turn in said]
    return record


def _filled(row: Row, answer: Template, config: ConvertConfig) -> dict[str, Any]:
    values = row.values
    names = images_of(row, config.image_column)
    if not names and not values.get("video"):
        raise MissingValue(f"no image name in column {config.image_column!r}")
    own = value_of(values, config.question_column) if config.question_column else None
    record: dict[str, Any] = {"id": _id(values, names, own)}
    if names:
        record["image"] = names if isinstance(values[config.image_column], list) else names[0]
    # From CSV only the video's name is taken: a box or a time would be text.
    kept = [key for key in MEDIA_KEYS if key in values and (key == "video" or not isinstance(values[key], str))]
    record |= {key: values[key] for key in kept}
    question = own or choose_question(config.questions, record["id"])
    record["conversations"] = [
        {"from": "human", "value": question},
        {"from": "assistant", "value": answer.fill(values)},
    ]
    return record


def _id(values: Mapping[str, Any], names: list[str], own: Any) -> str:
    """The row's own id; without one, its first image or its video, and a digest of what tells it from others of these."""
    if values.get("id") not in (None, ""):
        return parse_id(values["id"])
    digest = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:12]
    video = values.get("video")
    stem = names[0] if names else video if isinstance(video, str) and video else "text"
    return stem if own is None else f"{stem}#{digest}"


def _renamed(turn: Mapping[str, Any]) -> dict[str, Any]:
    return {**turn, "from": "assistant"} if turn["from"] == "gpt" else dict(turn)
