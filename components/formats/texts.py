"""Rows that bring their texts as they are: `text`, or `question` and `answer`, beside the file that they are about.

{"image": "0.png", "question": "Which digit?", "answer": "0"}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.formats.format import Way
from components.formats.named_media import media_of, with_image, with_paths
from components.rows.row import Row

__all__ = ["media_of", "own_answer", "record_of", "takes", "with_paths"]


def takes(values: Mapping[str, Any]) -> bool:
    return own_answer({key for key, value in values.items() if value is not None}) is not None


def own_answer(keys: set[str] | frozenset[str]) -> str | None:
    """The key of the answer in a row that has a value under these keys."""
    return "answer" if {"question", "answer"} <= keys else "text" if "text" in keys else None


def record_of(row: Row, id: str, way: Way) -> dict[str, Any]:
    """The row itself: a record may hold `text`, or `question` and `answer`, in place of a conversation."""
    return with_image(row, id, way.image_column)
