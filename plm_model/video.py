"""A clip of a video becomes tiles: which of its frames the model sees, and each of them as one square of the tower's size.

Frames stand on a grid of one a second. Worked example, at 30 frames a second and at most 32: of 300 frames (10 s, too few
grid points) 32 are taken evenly from all of them, 0 … 299; of 960 frames the 32 grid points 0, 30, … 930; of 3,000 frames
32 of the 100 grid points, first and last included: 0, 90, 180, … 2970.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from PIL import Image

from plm_model.config import ProcessorConfig
from plm_model.frames import FrameTable, Source, UnshownFrame, VideoError, counted_table, frame_table, read_frames
from plm_model.images import squash
from plm_model.regions import Box, BoxError, draw_box

__all__ = ["VideoError", "sample_frames", "video_tiles"]


def video_tiles(
    source: Source,
    processor: ProcessorConfig,
    image_size: int,
    start: float | None = None,
    end: float | None = None,
    boxes: Mapping[int, Box] | None = None,
    name: str | None = None,
) -> np.ndarray:
    """The tiles of a clip, one for each frame that the model sees: uint8 [frames, 3, image_size, image_size].

    `source` is a file; `start` and `end` are seconds, None for the video's own. `boxes` maps numbers of the file's frames
    to (x1, y1, x2, y2) in pixels, drawn in red on the frame before it is resized. VideoError, which begins with `name` (the
    file where it is None), when the file is no whole video, or has no such clip, or a box does not belong to it.
    """
    try:
        table = frame_table(source)
        try:
            return clip_tiles(source, table, processor.max_video_frames, image_size, start, end, boxes)
        except UnshownFrame:
            counted = counted_table(source)
            return clip_tiles(source, counted, processor.max_video_frames, image_size, start, end, boxes)
    except (VideoError, BoxError) as error:
        raise VideoError(f"{name or source}: {error}") from error


def clip_tiles(
    source: Source,
    table: FrameTable,
    limit: int,
    image_size: int,
    start: float | None,
    end: float | None,
    boxes: Mapping[int, Box] | None,
) -> np.ndarray:
    numbers = sample_frames(table.count, table.fps, limit, start, end)
    if boxes:
        require_boxes(boxes, numbers, table.count)
    tiles = np.empty((len(numbers), 3, image_size, image_size), np.uint8)
    for place, (number, frame) in enumerate(zip(numbers, read_frames(source, table, numbers), strict=True)):
        image = Image.fromarray(frame)
        if boxes and number in boxes:
            try:
                draw_box(image, boxes[number])
            except BoxError as error:
                raise BoxError(f"frame {number}: {error}") from error
        tiles[place] = squash(image, image_size, image_size)
    return tiles


def sample_frames(
    count: int, fps: float, limit: int, start: float | None = None, end: float | None = None
) -> list[int]:
    """Numbers of the frames that stand for a clip, ascending, at most `limit`; VideoError when it is not in the video.

    A clip with more grid points than that is thinned evenly, ends included; one with fewer is sampled evenly from all of
    its frames. A start behind the end is taken for a swap; a clip without length is one frame longer, where there is one.
    """
    for key, seconds in (("start_time", start), ("end_time", end)):
        if seconds is not None and not 0 <= seconds < math.inf:
            raise VideoError(f"{key} is {seconds}; it must be a number of seconds, not negative")
    first = int((start or 0) * fps)
    if first >= count:
        raise VideoError(f"start_time {start:g} s is after the end of the video ({count} frames, {count / fps:.2f} s)")
    last = min(int((end or 0) * fps) or count - 1, count - 1)
    first, last = min(first, last), max(first, last)
    last = min(max(last, first + 1), count - 1)
    grid = range(first, last + 1, max(1, round(fps)))
    if len(grid) == limit:
        return list(grid)
    return evenly(grid if len(grid) > limit else range(first, last + 1), limit)


def evenly(numbers: range, limit: int) -> list[int]:
    """At most `limit` of the numbers, evenly spaced, first and last included; halves are rounded to even."""
    chosen = min(limit, len(numbers))
    if chosen == 1:
        return [numbers[0]]
    return [numbers[round(place * (len(numbers) - 1) / (chosen - 1))] for place in range(chosen)]


def require_boxes(boxes: Mapping[int, Box], numbers: list[int], count: int) -> None:
    """BoxError when boxes belong to frames that the video does not have, or none to one that the model sees."""
    if max(boxes) >= count:
        raise BoxError(f"bbox_map names frame {max(boxes)}, but the video has {count} frames")
    if not boxes.keys() & set(numbers):
        raise BoxError(f"bbox_map has no box on any of the {len(numbers)} sampled frames")
