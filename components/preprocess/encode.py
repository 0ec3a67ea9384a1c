"""One line of JSON becomes one row of a shard, or a reason why not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.errors import Unusable
from components.media_files.root import MediaRoot, MissingMedia
from plm_model.family import Codec
from plm_model.media.image_file import ImageError
from plm_model.media.shown_name import short
from plm_model.media.video import VideoError
from plm_model.packs.example import ARRAYS
from plm_model.packs.stored import StoreOptions
from plm_model.records.record import Record, RecordError, parse_record

# The key under which a row may say which line of the user's own file it was, such as `labels.csv:17`.
USER_LINE = "from_line"
AS_FOUND = StoreOptions()


@dataclass(frozen=True)
class Encoder:
    """Everything that a worker needs to encode lines of one data set."""

    codec: Codec
    media: MediaRoot
    options: StoreOptions = AS_FOUND

    def encode(self, raw: bytes, source: str) -> dict[str, Any]:
        """The row of a shard (columns of `shards.schema`) of one line of JSON, and beside these columns `notes`, the kinds of
        `components.noted` that were noticed about it, and `place`, the line of the user's file where the row says it.

        `source` names where the row comes from unless it has a `source` of its own. Unusable when it cannot be used.
        """
        row = load(raw)
        try:
            return self.encode_record(parse_record(row), source)
        except (RecordError, ImageError, VideoError, MissingMedia) as error:
            raise Unusable(readable(error), known_id(row), user_line(row)) from error

    def encode_record(self, record: Record, source: str) -> dict[str, Any]:
        stored = self.codec.store(record, self.media, self.options)
        return {
            "id": record.id,
            "source": readable(record.row.get("source") or source),
            "record": json.dumps({key: value for key, value in record.row.items() if key != USER_LINE}),
            **{name: getattr(stored.example, name) for name in ARRAYS},
            "media": stored.media,
            "tokens_n": stored.example.length,
            "supervised": stored.example.supervised,
            "media_n": stored.items,
            "frames": stored.frames,
            "notes": sorted(record.notes | stored.notes),
            "place": user_line(record.row),
        }


def load(raw: bytes) -> dict[str, Any]:
    try:
        row = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise Unusable(f"not UTF-8 text: byte {error.start} of the line") from error
    except (ValueError, RecursionError) as error:
        raise Unusable(f"broken JSON: {error}") from error
    if not isinstance(row, dict):
        raise Unusable(f"a row must be a JSON object, not {type(row).__name__}")
    return row


def identity(raw: bytes) -> tuple[str | None, str | None, str]:
    """What names a row, as far as it can be read: its id, the line of the user's file, its media."""
    try:
        row = load(raw)
    except Unusable:
        return None, None, ""
    media = row.get("image") or row.get("video") or ""
    names = [name for name in (media if isinstance(media, list) else [media]) if isinstance(name, str)]
    return known_id(row), user_line(row), short(readable(", ".join(names)))


def known_id(row: Mapping[str, Any]) -> str | None:
    return readable(row["id"]) if row.get("id") is not None else None


def user_line(row: Mapping[str, Any]) -> str | None:
    place = row.get(USER_LINE)
    return readable(place) if isinstance(place, str) and place else None


def readable(value: Any) -> str:
    """Text that any file can hold, on one line."""
    return " ".join(str(value).encode("utf-8", "replace").decode().split())
