"""Rows that are a dialogue: `conversations` or `messages`, a list of turns with the keys and roles of ours or of others.

{"image": "0.png", "messages": [{"role": "user", "content": "Which digit?"}, {"role": "assistant", "content": "0"}]}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.formats.format import Way
from components.formats.named_media import media_of, with_image, with_paths
from components.rows.row import Row

__all__ = ["KEYS", "media_of", "record_of", "takes", "with_paths"]

KEYS = ("conversations", "messages")
ROLES = {"user": "human"}  # what others call them
NAMES = {"role": "from", "content": "value"}


def takes(values: Mapping[str, Any]) -> bool:
    return any(values.get(key) is not None for key in KEYS)


def record_of(row: Row, id: str, way: Way) -> dict[str, Any]:
    """The row with its turns under `conversations`, each with `from` and `value`."""
    record = with_image(row, id, way.image_column)
    if "messages" in record and record.get("conversations") is None:
        record["conversations"] = record.pop("messages")
    if isinstance(record.get("conversations"), list):
        record["conversations"] = [_as_turn(turn) for turn in record["conversations"]]
    return record


def _as_turn(turn: Any) -> Any:
    if not isinstance(turn, Mapping):
        return turn
    found = {NAMES.get(key, key) if NAMES.get(key) not in turn else key: value for key, value in turn.items()}
    role = found.get("from")
    return found | {"from": ROLES.get(role, role)} if isinstance(role, str) else found
