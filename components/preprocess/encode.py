"""One line of JSON becomes one row of a shard, or a reason why not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.media_files.root import MediaRoot, MissingMedia, short
from plm_model.codec import Codec
from plm_model.config import ProcessorConfig
from plm_model.conversation import RejectedRecord
from plm_model.image_file import ImageError
from plm_model.images import processor_for, require_affordable, tile_counts
from plm_model.picture_check import Look, is_blank_video, look
from plm_model.record import Record, RecordError, VideoClip, parse_record, require_size
from plm_model.video import VideoError, encode_frame, video_tiles

# The key under which a row may say which line of the user's own file it was, such as `labels.csv:17`.
USER_LINE = "from_line"


class BadRow(ValueError):
    """A row for the quarantine: its id and the user's own line where they are known, and the reason."""

    def __init__(self, reason: str, id: str | None = None, place: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.id = id
        self.place = place


@dataclass(frozen=True)
class Shown:
    """What the model sees of a record: media as a shard keeps them, the tiles that each image or video becomes, and the
    kinds of what was noticed about them (`components.noted`)."""

    media: list[dict[str, Any]]
    tiles: list[int]
    frames: int = 0
    notes: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Encoder:
    """Everything that a worker needs to encode lines of one data set. `frame_jpeg_quality` None keeps frames exactly; with
    `reject_damaged` a row is bad whose picture is damaged, though it can be shown.
    """

    codec: Codec
    media: MediaRoot
    frame_jpeg_quality: int | None = None
    reject_damaged: bool = False

    def encode(self, raw: bytes, source: str, refused: str | None = None) -> dict[str, Any]:
        """The row of a shard (columns of `shards.schema`) of one line of JSON, and beside these columns `notes`, the kinds of
        `components.noted` that were noticed about it, and `place`, the line of the user's file where the row says it.

        `source` names where the row comes from unless it has a `source` of its own; `refused` is a reason known before.
        BadRow when it cannot be used.
        """
        row = load(raw)
        if refused is not None:
            raise BadRow(refused, known_id(row), user_line(row))
        try:
            return self.encode_record(parse_record(row), source)
        except (RecordError, RejectedRecord, ImageError, VideoError, MissingMedia) as error:
            raise BadRow(visible(error), known_id(row), user_line(row)) from error

    def encode_record(self, record: Record, source: str) -> dict[str, Any]:
        shown = self.images(record) if record.video is None else self.video(record.video)
        example, notes = self.codec.encode_noted(record, shown.tiles)
        return {
            "id": record.id,
            "source": visible(record.row.get("source") or source),
            "record": json.dumps({key: value for key, value in record.row.items() if key != USER_LINE}),
            "tokens": example.tokens,
            "targets": example.targets,
            "pos": example.pos,
            "seg": example.seg,
            "group": example.group,
            "media": shown.media,
            "tokens_n": example.length,
            "supervised": example.supervised,
            "tiles": sum(shown.tiles),
            "frames": shown.frames,
            "notes": sorted(record.notes | shown.notes | notes),
            "place": user_line(record.row),
        }

    def images(self, record: Record) -> Shown:
        """Images as they are, decoded once to know their size, which that of boxes must be, and that they are whole."""
        data = [self.media.read(path) for path in record.images]
        processor, side = self.codec.config.processor, self.codec.config.vision.image_size
        each = processor_for(processor, len(data))
        looks = [self.looked_at(path, image, each) for path, image in zip(record.images, data, strict=True)]
        sizes = [found.size for found in looks]
        require_size(record, sizes)
        notes = frozenset[str]().union(*(found.notes for found in looks))
        return Shown(
            [{"kind": "image", "data": image} for image in data], tile_counts(sizes, processor, side), 0, notes
        )

    def looked_at(self, path: str, data: bytes, processor: ProcessorConfig) -> Look:
        """The size of an image after decoding all of it, so that no damaged one reaches training, and what is odd about it."""
        try:
            found = look(data, processor.sixteen_bit_white)
            require_affordable(*found.size, processor, self.codec.config.vision.image_size)
            if self.reject_damaged and "damaged_picture" in found.notes:
                raise ImageError("damaged image, which preprocess.damaged=keep would take as it comes out")
        except ImageError as error:
            raise ImageError(f"{short(path)}: {error}") from error
        return found

    def video(self, clip: VideoClip) -> Shown:
        """The frames of a clip that the model sees, as tiles: decoded, marked and resized here, once for all epochs."""
        config = self.codec.config
        notes: set[str] = set()
        with self.media.file(clip.path) as file:
            where = (clip.start, clip.end, clip.boxes, short(clip.path))
            tiles = video_tiles(file, config.processor, config.vision.image_size, *where, notes)
        if is_blank_video(tiles):
            notes.add("blank")
        media = [{"kind": "frame", "data": encode_frame(tile, self.frame_jpeg_quality)} for tile in tiles]
        return Shown(media, [len(tiles)], len(tiles), frozenset(notes))


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


def identity(raw: bytes) -> tuple[str | None, str | None, str]:
    """What names a row, as far as it can be read: its id, the line of the user's file, its media."""
    try:
        row = load(raw)
    except BadRow:
        return None, None, ""
    media = row.get("image") or row.get("video") or ""
    names = [name for name in (media if isinstance(media, list) else [media]) if isinstance(name, str)]
    return known_id(row), user_line(row), short(visible(", ".join(names)))


def known_id(row: Mapping[str, Any]) -> str | None:
    return visible(row["id"]) if row.get("id") is not None else None


def user_line(row: Mapping[str, Any]) -> str | None:
    place = row.get(USER_LINE)
    return visible(place) if isinstance(place, str) and place else None


def visible(value: Any) -> str:
    """Text that any file can hold, on one line."""
    return " ".join(str(value).encode("utf-8", "replace").decode().split())
