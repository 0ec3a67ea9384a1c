"""A training conversation as it stands in `dataset.jsonl`, checked when it is read.

    {"id": "7", "image": "images/7.png", "conversations": [{"from": "human", "value": "Which digit?"},
                                                           {"from": "assistant", "value": "7"}]}

Every kind of row is a record:

    text, image, several images    nothing, or `image`: a path or a list of paths
    image region                   `image`, `bbox` ([x, y, w, h] in pixels each), `width`, `height`; `<|bbox0|>` in a text
                                   becomes the text of the first box
    video                          `video`, and `start_time` and `end_time` in seconds where it is a part of one
    video region                   `video`, `bbox_map`: frame number -> [x1, y1, x2, y2] in pixels, or null
    caption                        any media, and `text` in place of `conversations`: an empty question with that answer
    question and answer            any media, and `question` and `answer` in place of `conversations`

An image beats a video where a row names both. Keys that are not read here are kept. What the original trains on is trained on:
a box that sticks out is cut, a number is written as text; such repairs are among the record's `notes`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from plm_model.records.regions import SLACK, Box, BoxError, box_text, corners, in_shares, overhang, place_boxes
from plm_model.records.turns import (
    GptRoleError,
    RecordError,
    Turn,
    kinds_of,
    parse_turns,
    require_media,
    require_unicode,
)

# What files of records promise to whoever reads them: one JSON object a line that `parse_record` accepts with the roles `human`
# and `assistant`; no two with one id, in any of the splits; media named by paths below the data root.
SCHEMA = "records-1"

__all__ = [
    "SCHEMA",
    "GptRoleError",
    "Record",
    "RecordError",
    "Turn",
    "VideoClip",
    "parse_id",
    "parse_record",
    "require_size",
]


@dataclass(frozen=True)
class VideoClip:
    """A video, or the part of it from `start` to `end` (seconds), with a box to draw on each frame named in `boxes`."""

    path: str
    start: float | None = None
    end: float | None = None
    boxes: Mapping[int, Box] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VideoClip:
        """A clip from the JSON of its fields, in which the numbers of frames are text."""
        boxes = {int(frame): corners(box) for frame, box in values["boxes"].items()}
        return cls(values["path"], values["start"], values["end"], boxes)


@dataclass(frozen=True)
class Record:
    """A conversation about images, or a video, or nothing. Boxes stand in the turns as text already.

    `row` is the mapping it was read from, with every key; `notes` are the kinds of what was noticed about it, of which none is
    an error: what is not used, and what is used otherwise than it stands.
    """

    id: str
    images: tuple[str, ...]
    turns: tuple[Turn, ...]
    row: Mapping[str, Any]
    video: VideoClip | None = None
    notes: frozenset[str] = frozenset()


def parse_record(row: Mapping[str, Any], *, accept_gpt_role: bool = False) -> Record:
    """Check a JSON row and give it types; RecordError naming the key that is wrong."""
    if not isinstance(row, Mapping):
        raise RecordError(f"a row must be a JSON object, not {type(row).__name__}")
    notes: set[str] = set()
    images = parse_images(row.get("image"))
    video = None if images else parse_video(row)
    turns = parse_turns(row, accept_gpt_role, notes)
    media = len(images) or int(video is not None)
    require_media(turns, media)
    notes.update(kinds_of(turns, media))
    if not media:
        require_no_boxes(row)
        notes.add("text_only")
    elif images and row.get("video"):
        notes.add("image_beats_video")
    return Record(
        id=parse_id(row.get("id")),
        images=images,
        turns=turns_with_boxes(turns, row, notes) if images else turns,
        row=dict(row),
        video=video,
        notes=frozenset(notes),
    )


def parse_id(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        raise RecordError("`id` must be a non-empty string" if value is not None else "`id` is missing")
    require_unicode(value, "id")
    return value


def parse_images(value: Any) -> tuple[str, ...]:
    paths = [] if value in (None, "") else [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or not all(isinstance(path, str) and path for path in paths):
        raise RecordError("`image` must be a path or a list of paths")
    return tuple(paths)


def parse_video(row: Mapping[str, Any]) -> VideoClip | None:
    path = row.get("video")
    if path in (None, "", []):
        return None
    if not isinstance(path, str):
        raise RecordError("`video` must be a path")
    return VideoClip(path, parse_seconds(row, "start_time"), parse_seconds(row, "end_time"), parse_bbox_map(row))


def parse_seconds(row: Mapping[str, Any], key: str) -> float | None:
    value = row.get(key)
    if value is not None and not (is_number(value) and value >= 0):
        raise RecordError(f"`{key}` is {value!r}; it must be a number of seconds, not negative")
    return value


def parse_bbox_map(row: Mapping[str, Any]) -> dict[int, Box]:
    """The boxes by the number of their frame; frames without one are left out."""
    found = row.get("bbox_map")
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise RecordError("`bbox_map` must map numbers of frames to boxes")
    boxes = {}
    for frame, box in found.items():
        if not re.fullmatch("0|[1-9][0-9]*", str(frame)):
            raise RecordError(f"`bbox_map` names frame {frame!r}; a frame is a number, 0 or more")
        if box is not None:
            try:
                boxes[int(frame)] = corners(box)
            except BoxError as error:
                raise RecordError(f"`bbox_map.{frame}`: {error}") from None
    if boxes and all(map(in_shares, boxes.values())):
        raise RecordError("the boxes of `bbox_map` lie between 0 and 1; they must be in pixels")
    return boxes


def turns_with_boxes(turns: tuple[Turn, ...], row: Mapping[str, Any], notes: set[str]) -> tuple[Turn, ...]:
    """The turns with the text of a box of `bbox` for each placeholder."""
    boxes = parse_bbox(row, notes) if row.get("bbox") is not None else []
    try:
        return tuple(replace(turn, text=place_boxes(turn.text, boxes)) for turn in turns)
    except BoxError as error:
        raise RecordError(str(error)) from None


def require_no_boxes(row: Mapping[str, Any]) -> None:
    """RecordError when a row without media has boxes: what they are of cannot be checked, and nothing would show it."""
    for key in ("bbox", "bbox_map"):
        if row.get(key):
            raise RecordError(f"`{key}` has boxes, but the row has no image or video")


def parse_bbox(row: Mapping[str, Any], notes: set[str]) -> list[str]:
    """The text of each box of an image of `width` x `height`; one that sticks out is cut, as the original does."""
    boxes = row["bbox"]
    size: tuple[Any, Any] = (row.get("width"), row.get("height"))
    if not isinstance(boxes, list):
        raise RecordError("`bbox` must be a list of boxes [x, y, w, h]")
    if not all(is_number(side) and side > 0 for side in size):
        raise RecordError(
            f"`bbox` needs the image's `width` and `height` in pixels beside it, as numbers, not {size[0]!r} and {size[1]!r}"
        )
    texts = []
    for number, box in enumerate(boxes):
        try:
            texts.append(box_text(box, *size))
            if overhang(box, *size) > SLACK:
                notes.add("box_clamped")
        except BoxError as error:
            raise RecordError(f"`bbox[{number}]`: {error}") from None
    return texts


def require_size(record: Record, sizes: Sequence[tuple[int, int]]) -> None:
    """RecordError when the boxes of a record are of an image of another size than any of its upright images, `sizes`."""
    if not record.row.get("bbox"):
        return
    said = (record.row["width"], record.row["height"])
    if any(all(abs(a - b) <= SLACK for a, b in zip(said, size, strict=True)) for size in sizes):
        return
    there = ", ".join(f"{width}x{height}" for width, height in sizes)
    turned = any(all(abs(a - b) <= SLACK for a, b in zip(said, size[::-1], strict=True)) for size in sizes)
    raise RecordError(
        f"`bbox` counts on an image of {said[0]:g}x{said[1]:g} (`width`, `height`), but upright {record.images[0]} has {there}"
        + ("; width and height are swapped, or EXIF turns the image and not its boxes" if turned else "")
    )


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
