"""One line of JSON becomes one row of a shard, or a reason why not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from components.preprocess.media import MediaRoot, MissingMedia
from plm_model.codec import Codec
from plm_model.conversation import RejectedRecord
from plm_model.images import ImageError, tile_counts, verified_size
from plm_model.record import Record, RecordError, parse_record


class BadRow(ValueError):
    """A row for the quarantine: its id where it has one, and the reason."""

    def __init__(self, reason: str, id: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.id = id


@dataclass(frozen=True)
class Encoder:
    """Everything that a worker needs to encode lines of one data set."""

    codec: Codec
    media: MediaRoot
    accept_gpt_role: bool = False

    def encode(self, raw: bytes, source: str, refused: str | None = None) -> dict[str, Any]:
        """The row of a shard (columns of `shards.schema`) of one line of JSON.

        `source` names where the row comes from unless it has a `source` of its own; `refused` is a reason known before.
        BadRow when it cannot be used.
        """
        row = load(raw)
        known_id = visible(row["id"]) if row.get("id") is not None else None
        if refused is not None:
            raise BadRow(refused, known_id)
        try:
            return self.encode_record(parse_record(row, accept_gpt_role=self.accept_gpt_role), source)
        except (RecordError, RejectedRecord, ImageError, MissingMedia) as error:
            raise BadRow(visible(error), known_id) from error

    def encode_record(self, record: Record, source: str) -> dict[str, Any]:
        data = [self.media.read(path) for path in record.images]
        sizes = [image_size(path, image) for path, image in zip(record.images, data, strict=True)]
        counts = tile_counts(sizes, self.codec.config.processor, self.codec.config.vision.image_size)
        example = self.codec.encode(record, counts)
        return {
            "id": record.id,
            "source": visible(record.row.get("source") or source),
            "record": json.dumps(record.row),
            "tokens": example.tokens,
            "targets": example.targets,
            "pos": example.pos,
            "seg": example.seg,
            "group": example.group,
            "media": [{"kind": "image", "data": image} for image in data],
            "tokens_n": example.length,
            "supervised": example.supervised,
            "tiles": sum(counts),
            "frames": 0,
        }


def load(raw: bytes) -> dict[str, Any]:
    try:
        row = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise BadRow(f"not UTF-8 text: byte {error.start} of the line") from error
    except (ValueError, RecursionError) as error:
        raise BadRow(f"broken JSON: {error}") from error
    if not isinstance(row, dict):
        raise BadRow(f"a row must be a JSON object, not {type(row).__name__}")
    return row


def image_size(path: str, data: bytes) -> tuple[int, int]:
    """Width and height of an image after decoding all of it, so that no damaged one reaches training."""
    try:
        return verified_size(data)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def visible(value: Any) -> str:
    """Text that any file can hold, on one line."""
    return " ".join(str(value).encode("utf-8", "replace").decode().split())
