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

An image beats a video where a row names both. Keys that are not read here are kept.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from plm_model.regions import Box, BoxError, box_text, corners, place_boxes

Role = Literal["human", "assistant"]


class RecordError(ValueError):
    """A row that is not a conversation; the message names the key and what is wrong with it."""


class GptRoleError(RecordError):
    """A row that uses LLaVA's role `gpt`, read without the option that accepts it."""


@dataclass(frozen=True)
class Turn:
    """One thing said by one side."""

    role: Role
    text: str


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

    `row` is the mapping it was read from, with every key.
    """

    id: str
    images: tuple[str, ...]
    turns: tuple[Turn, ...]
    row: Mapping[str, Any]
    video: VideoClip | None = None


def parse_record(row: Mapping[str, Any], *, accept_gpt_role: bool = False) -> Record:
    """Check a JSON row and give it types; RecordError naming the key that is wrong."""
    if not isinstance(row, Mapping):
        raise RecordError(f"a row must be a JSON object, not {type(row).__name__}")
    images = parse_images(row.get("image"))
    turns = parse_turns(row, accept_gpt_role)
    return Record(
        id=parse_id(row.get("id")),
        images=images,
        turns=turns_with_boxes(turns, row) if images else turns,
        row=dict(row),
        video=None if images else parse_video(row),
    )


def parse_id(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        raise RecordError("`id` must be a non-empty string" if value is not None else "`id` is missing")
    require_unicode(value, "id")
    return value


def parse_images(value: Any) -> tuple[str, ...]:
    paths = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or not all(isinstance(path, str) and path for path in paths):
        raise RecordError("`image` must be a path or a list of paths")
    return tuple(paths)


def parse_video(row: Mapping[str, Any]) -> VideoClip | None:
    path = row.get("video")
    if path is None:
        return None
    if not isinstance(path, str) or not path:
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
    return boxes


def turns_with_boxes(turns: tuple[Turn, ...], row: Mapping[str, Any]) -> tuple[Turn, ...]:
    """The turns with the text of a box of `bbox` for each placeholder."""
    boxes = parse_bbox(row) if row.get("bbox") is not None else []
    try:
        return tuple(replace(turn, text=place_boxes(turn.text, boxes)) for turn in turns)
    except BoxError as error:
        raise RecordError(str(error)) from None


def parse_bbox(row: Mapping[str, Any]) -> list[str]:
    """The text of each box of an image of `width` x `height`."""
    boxes, size = row["bbox"], (row.get("width"), row.get("height"))
    if not isinstance(boxes, list):
        raise RecordError("`bbox` must be a list of boxes [x, y, w, h]")
    if not all(is_number(side) and side > 0 for side in size):
        raise RecordError("`bbox` needs the image's `width` and `height` in pixels beside it")
    texts = []
    for number, box in enumerate(boxes):
        try:
            texts.append(box_text(box, *size))
        except BoxError as error:
            raise RecordError(f"`bbox[{number}]`: {error}") from None
    return texts


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def parse_turns(row: Mapping[str, Any], accept_gpt_role: bool) -> tuple[Turn, ...]:
    conversation = row.get("conversations")
    if conversation is None:
        return parse_plain(row)
    if not isinstance(conversation, list) or not conversation:
        raise RecordError("`conversations` must be a non-empty list")
    return tuple(parse_turn(turn, f"conversations[{n}]", accept_gpt_role) for n, turn in enumerate(conversation))


def parse_plain(row: Mapping[str, Any]) -> tuple[Turn, ...]:
    """The turns of a row without `conversations`: its `text`, or its `question` and `answer`."""
    keys = ("text",) if isinstance(row.get("text"), str) else ("question", "answer")
    if not all(isinstance(row.get(key), str) for key in keys):
        raise RecordError("`conversations` is missing, and neither `text` nor `question` and `answer` is there instead")
    for key in keys:
        require_unicode(row[key], key)
    question, answer = ("", row["text"]) if len(keys) == 1 else (row["question"], row["answer"])
    return Turn("human", question), Turn("assistant", answer)


def parse_turn(turn: Any, where: str, accept_gpt_role: bool) -> Turn:
    if not isinstance(turn, Mapping) or not isinstance(turn.get("value"), str):
        raise RecordError(f"`{where}` must be an object with the strings `from` and `value`")
    require_unicode(turn["value"], f"{where}.value")
    role = turn.get("from")
    if role == "gpt":
        if not accept_gpt_role:
            raise GptRoleError(f"`{where}.from` is `gpt`; write `assistant`, or set convert.accept_gpt_role=true")
        role = "assistant"
    if role not in ("human", "assistant"):
        raise RecordError(f"`{where}.from` is {role!r}; it must be `human` or `assistant`")
    return Turn(role, turn["value"])


def require_unicode(text: str, where: str) -> None:
    """JSON can spell half of a surrogate pair, which no tokenizer or file takes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RecordError(f"`{where}` holds half of a surrogate pair at character {error.start}") from error
