"""What the model sees of the media of a record: how many tiles each becomes, and the bytes that a shard keeps of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plm_model.families.plm.settings import PLMConfig, ProcessorConfig
from plm_model.families.plm.tiles import processor_for, require_affordable, tile_counts, video_tiles
from plm_model.media.image_file import ImageError
from plm_model.media.images import verified_size
from plm_model.media.picture_check import Look, is_blank_video, look
from plm_model.media.shown_name import short
from plm_model.media.video import encode_frame, read_clip
from plm_model.packs.stored import MediaFiles, StoreOptions
from plm_model.records.record import Record, VideoClip, require_size


@dataclass(frozen=True)
class Shown:
    """Media as a shard keeps them, the tiles that each image or video becomes, and the kinds of what was noticed about them."""

    media: Sequence[Mapping[str, Any]]
    tiles: Sequence[int]
    frames: int = 0
    notes: frozenset[str] = frozenset()


def shown(record: Record, files: MediaFiles, options: StoreOptions, config: PLMConfig) -> Shown:
    """What of a record's media is kept. ImageError, VideoError or RecordError, naming the file, when one cannot be used."""
    if record.video is not None:
        return shown_video(record.video, files, options, config)
    return shown_images(record, files, options, config)


def shown_images(record: Record, files: MediaFiles, options: StoreOptions, config: PLMConfig) -> Shown:
    """Images as they are, decoded once to know their size, which that of boxes must be, and that they are whole."""
    data = [files.read(path) for path in record.images]
    side, each = config.vision.image_size, processor_for(config.processor, len(data))
    looks = [looked_at(path, image, each, side, options) for path, image in zip(record.images, data, strict=True)]
    sizes = [found.size for found in looks]
    require_size(record, sizes)
    notes = frozenset[str]().union(*(found.notes for found in looks))
    media = [{"kind": "image", "data": image} for image in data]
    return Shown(media, tile_counts(sizes, config.processor, side), 0, notes)


def looked_at(path: str, data: bytes, processor: ProcessorConfig, side: int, options: StoreOptions) -> Look:
    """The size of an image after decoding all of it, so that no damaged one reaches training, and what is odd about it."""
    try:
        found = look(data, processor.sixteen_bit_white)
        require_affordable(*found.size, processor, side)
        if options.reject_damaged and "damaged_picture" in found.notes:
            raise ImageError("damaged image, which preprocess.damaged=keep would take as it comes out")
    except ImageError as error:
        raise ImageError(f"{short(path)}: {error}") from error
    return found


def shown_video(clip: VideoClip, files: MediaFiles, options: StoreOptions, config: PLMConfig) -> Shown:
    """The frames of a clip that the model sees, as tiles: decoded, marked and resized here, once for all epochs."""
    notes: set[str] = set()
    with files.file(clip.path) as file:
        where = (clip.start, clip.end, clip.boxes, short(clip.path))
        tiles = video_tiles(file, config.processor, config.vision.image_size, *where, notes)
    if is_blank_video(tiles):
        notes.add("blank")
    media = [{"kind": "frame", "data": encode_frame(tile, options.frame_jpeg_quality)} for tile in tiles]
    return Shown(media, [len(tiles)], len(tiles), frozenset(notes))


def asked_tiles(record: Record, files: Mapping[str, Path], config: PLMConfig) -> list[int]:
    """How many tiles each of a question's media becomes; all of them are decoded. Errors as of `shown`."""
    clip, processor = record.video, config.processor
    if clip is not None:
        show = (clip.start, clip.end, clip.boxes, clip.path)
        return [len(read_clip(files[clip.path], processor.max_video_frames, lambda frame: None, *show))]
    sizes = [size_of(path, files[path]) for path in record.images]
    require_size(record, sizes)
    return tile_counts(sizes, processor, config.vision.image_size)


def size_of(path: str, file: Path) -> tuple[int, int]:
    """Width and height of an image, of which all was decoded."""
    try:
        return verified_size(file.read_bytes())
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
