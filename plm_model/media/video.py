"""A clip of a video becomes the frames of it that a model sees, with their boxes."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
from PIL import Image

from plm_model.media.frame_table import FrameTable, Source, UnshownFrame, VideoError, counted_table, frame_table
from plm_model.media.frames import imported_decord, read_frames
from plm_model.media.sampling import clip_frames
from plm_model.records.regions import SLACK, Box, BoxError, draw_box, overhang

__all__ = [
    "VideoError",
    "decode_frame",
    "encode_frame",
    "load_libraries",
    "read_clip",
    "squash_frame",
]

T = TypeVar("T")

FRAMES_BEHIND = 0.02  # of a video's frames: boxes may go on so far behind its end, where somebody counted otherwise


def squash_frame(frame: np.ndarray, side: int) -> np.ndarray:
    """Resize a frame, uint8 [H, W, 3], to a square, uint8 [3, side, side]: in float32, clamped and rounded once.

    These are the pixels that the original trains on. Pillow, which resizes images, rounds between its two passes, too, which
    moves a fifth of the values by 1 and those beside a red box by up to 12. Channel by channel the numbers stay in the cache.
    """
    import torch

    square = np.empty((3, side, side), np.uint8)
    pixels = torch.from_numpy(frame)
    for channel in range(3):
        plane = pixels[:, :, channel].float().contiguous()[None, None]
        plane = torch.nn.functional.interpolate(plane, (side, side), mode="bicubic", antialias=True)
        square[channel] = plane[0, 0].clamp_(0, 255).round_().to(torch.uint8).numpy()
    return square


def load_libraries() -> None:
    """Import what videos need, so that it is not the first one's time."""
    import av  # noqa: F401
    import torch  # noqa: F401

    imported_decord()


def read_clip(
    source: Source,
    max_frames: int,
    keep: Callable[[Image.Image], T],
    start: float | None = None,
    end: float | None = None,
    boxes: Mapping[int, Box] | None = None,
    name: str | None = None,
    notes: set[str] | None = None,
) -> list[T]:
    """What `keep` makes of each frame (RGB, in the video's own size) that stands for a clip, in their order.

    `source` is a file; `start` and `end` are seconds, None for the video's own. `boxes` maps numbers of the file's frames
    to (x1, y1, x2, y2) in pixels, drawn on them in red. VideoError, which begins with `name` (the file where it is None),
    when the file is no whole video, or has no such clip, or a box does not belong to it. Kinds of what is noticed beside that
    are added to `notes`.
    """
    given, notes = boxes or {}, set() if notes is None else notes

    def read(table: FrameTable) -> list[T]:
        numbers = clip_frames(table, max_frames, start, end)
        if table.rate is None:
            notes.add("variable_rate")
        boxes = boxes_of(given, numbers, table.count, notes)
        frames = read_frames(source, table, numbers)
        return [keep(marked(frame, boxes, number, notes)) for number, frame in zip(numbers, frames, strict=True)]

    try:
        try:
            return read(frame_table(source))
        except UnshownFrame:
            return read(counted_table(source))
    except (VideoError, BoxError) as error:
        raise VideoError(f"{name or source}: {error}") from error


def marked(frame: np.ndarray, boxes: Mapping[int, Box], number: int, notes: set[str]) -> Image.Image:
    """A frame as an image, with its box where it has one."""
    image = Image.fromarray(frame)
    if number in boxes:
        x1, y1, x2, y2 = boxes[number]
        if overhang((x1, y1, x2 - x1, y2 - y1), image.width, image.height) > SLACK:
            notes.add("drawn_box_clipped")
        try:
            draw_box(image, boxes[number])
        except BoxError as error:
            raise BoxError(f"frame {number}: {error}") from error
    return image


def boxes_of(boxes: Mapping[int, Box], numbers: list[int], count: int, notes: set[str]) -> Mapping[int, Box]:
    """The boxes of a video of `count` frames. Those of few frames behind its end are left out, as the original does.

    BoxError when boxes belong to other frames than the video's, or none to one that the model sees.
    """
    if not boxes:
        return {}
    there = {number: box for number, box in boxes.items() if number < count}
    if len(there) < len(boxes):
        if max(boxes) >= count + max(1, round(FRAMES_BEHIND * count)):
            raise BoxError(f"bbox_map names frame {max(boxes)}, but the video has {count} frames")
        notes.add("box_frames_ignored")
    if not there.keys() & set(numbers):
        raise BoxError(f"bbox_map has no box on any of the {len(numbers)} sampled frames")
    return there


def encode_frame(frame: np.ndarray, jpeg_quality: int | None = None) -> bytes:
    """A frame, uint8 [3, H, W], as the bytes of an image: WebP without loss, or JPEG at a quality of 1 to 100.

    Lossless WebP at its fastest is smaller than PNG and no slower: 7.5 MB against 10.6 MB for 32 frames of 0.2
    megapixels from photographs, and 3.5 MB as JPEG of quality 95, which is off by 1.3 of 255 on average.
    """
    image = Image.fromarray(np.ascontiguousarray(frame.transpose(1, 2, 0)))
    buffer = io.BytesIO()
    if jpeg_quality is None:
        image.save(buffer, "WEBP", lossless=True, quality=0, method=0)
    else:
        image.save(buffer, "JPEG", quality=jpeg_quality, subsampling=0)
    return buffer.getvalue()


def decode_frame(data: bytes) -> np.ndarray:
    """The frame that `encode_frame` was given, uint8 [3, H, W]."""
    with Image.open(io.BytesIO(data)) as image:
        return np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1))
