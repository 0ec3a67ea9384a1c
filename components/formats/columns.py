"""Rows of columns, such as a table's, of which some are filled into the config's templates of a question and an answer.

image,label
0.png,zero
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.errors import Unusable
from components.formats.format import Way
from components.formats.named_media import images_of, media_of, with_paths
from components.formats.templates import choose_question, value_of
from components.rows.row import Row, keys_of

__all__ = ["media_of", "record_of", "takes", "with_paths"]

# Keys of a record that a row with a plain question and answer may carry too.
MEDIA_KEYS = ("video", "start_time", "end_time", "bbox", "bbox_map", "width", "height")


def takes(values: Mapping[str, Any]) -> bool:
    return True


def record_of(row: Row, id: str, way: Way) -> dict[str, Any]:
    """The row's files, with the question and the answer that its columns give."""
    values, column = row.values, way.image_column
    assert way.answer is not None
    names = images_of(row, column)
    if not names and not values.get("video"):
        raise Unusable(f"no image name in column {column!r}" + ("" if column in values else f": {keys_of(values)}"))
    if lacking := next((name for name in way.columns if name not in values), None):
        raise Unusable(f"no text in column {lacking!r}: {keys_of(values)}")
    own = value_of(values, way.question_column) if way.question_column else None
    record: dict[str, Any] = {"id": id}
    if names:
        record["image"] = names if isinstance(values[column], list) else names[0]
    # From CSV only the video's name is taken: a box or a time would be text.
    kept = [key for key in MEDIA_KEYS if key in values and (key == "video" or not isinstance(values[key], str))]
    record |= {key: values[key] for key in kept if values[key] is not None}
    record["conversations"] = [
        {"from": "human", "value": own or choose_question(way.questions, id)},
        {"from": "assistant", "value": way.answer.fill(values)},
    ]
    return record
