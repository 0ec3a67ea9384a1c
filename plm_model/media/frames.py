"""Any frame of a video file by its number, exactly: the same picture whichever library decodes it, however the file is built.

decord decodes frames where its seeking is exact: MP4 and Matroska files whose key frames come in the order in which they are
shown. Elsewhere (open groups of pictures, AVI, MPEG-TS, edit lists, turned videos, pictures that are refreshed bit by bit), or
where decord cannot open the file, gives another shape, or is not installed, PyAV decodes, with the same colours.

Every call opens its own reader and closes it, so none is shared between processes.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from plm_model.media.frame_table import FrameTable, Source, UnshownFrame, key_before, opened

log = logging.getLogger(__name__)


def read_frames(source: Source, table: FrameTable, numbers: Sequence[int]) -> Iterator[np.ndarray]:
    """The frames with these ascending numbers, one after the other: RGB, upright, uint8 [height, width, 3].

    UnshownFrame when the table counts frames that are not there, VideoError when one cannot be decoded.
    """
    left = list(numbers)
    if table.decord_is_exact:
        for frame in decord_frames(source, table, numbers):
            left.pop(0)
            yield frame
    if left:
        for frame in pyav_frames(source, table, left):
            yield table.orientation(frame)


def decord_frames(source: Source, table: FrameTable, numbers: Sequence[int]) -> Iterator[np.ndarray]:
    """The frames as long as decord can give them; it ends early, and says so, where it cannot.

    What it gives is looked at: at some widths, such as 16, 24 or 72, it makes pictures of another shape.
    """
    decord = imported_decord()
    if decord is None:
        return
    try:
        reader = decord.VideoReader(os.fspath(source), num_threads=1)
        if len(reader) != table.count:
            log.warning("%s: decord counts %d of %d frames; PyAV decodes it", source, len(reader), table.count)
            return
        for number in numbers:
            frame = reader[number].asnumpy()
            if frame.shape != (*table.size[::-1], 3):
                log.warning("%s: decord makes %s of its size; PyAV decodes it", source, frame.shape)
                return
            yield frame
    except decord.DECORDError as error:
        log.warning("%s: decord cannot decode it (%s); PyAV does", source, str(error).splitlines()[0])


@cache
def imported_decord() -> Any:
    """The decord module, or None, said once, where it is not installed (its wheels are for Linux on x86-64 only)."""
    try:
        import decord
    except ImportError:
        log.warning("decord is not installed; PyAV decodes videos, to the same frames")
        return None
    decord.logging.set_level(decord.logging.QUIET)  # what goes wrong reaches the user as our own message
    return decord


def pyav_frames(source: Source, table: FrameTable, numbers: Sequence[int]) -> Iterator[np.ndarray]:
    """The frames as they are stored, uint8 [height, width, 3]."""
    with opened(source) as (container, stream):
        find = counted_pictures if table.times is None else timed_pictures
        convert = ColorConversion()
        for picture in find(container, stream, table, numbers):
            yield convert(picture)


def counted_pictures(container: Any, stream: Any, table: FrameTable, numbers: Sequence[int]) -> Iterator[Any]:
    """Decoded frames by counting them from the start."""
    wanted = set(numbers)
    for number, picture in enumerate(container.decode(stream)):
        if number in wanted:
            yield picture
        if number == numbers[-1]:
            return
    raise UnshownFrame


def timed_pictures(container: Any, stream: Any, table: FrameTable, numbers: Sequence[int]) -> Iterator[Any]:
    """Decoded frames by the time at which they are shown; seeks to a key frame where that saves decoding."""
    assert table.times is not None
    pictures, at = container.decode(stream), -math.inf
    for number in numbers:
        time = table.times[number]
        key = key_before(table.keys, time)
        if key is not None and key[0] > at:
            container.seek(key[1], stream=stream)
            pictures = container.decode(stream)
        picture = next((picture for picture in pictures if picture.pts is None or picture.pts >= time), None)
        if picture is None or picture.pts != time:
            raise UnshownFrame
        yield picture
        at = time


class ColorConversion:
    """Decoded frames to RGB as ffmpeg's own filter does it, which follows the file's colour matrix and range.

    PyAV's `to_ndarray` takes every file for BT.601 and is up to 30/255 off for others.
    """

    def __init__(self) -> None:
        self.layout: tuple[Any, ...] | None = None

    def __call__(self, picture: Any) -> np.ndarray:
        layout = (picture.width, picture.height, picture.format.name, picture.colorspace, picture.color_range)
        if layout != self.layout:
            self.layout, self.graph = layout, self.build(picture)
        self.graph.push(picture)
        rgb: np.ndarray = self.graph.pull().to_ndarray()
        return rgb

    @staticmethod
    def build(picture: Any) -> Any:
        from av.filter import Graph

        graph = Graph()
        size = {"width": picture.width, "height": picture.height, "format": picture.format.name}
        first = graph.add_buffer(**size, time_base=picture.time_base)
        chain = [first, graph.add("scale", "flags=bilinear"), graph.add("format", "rgb24"), graph.add("buffersink")]
        for one, following in pairwise(chain):
            one.link_to(following)
        graph.configure()
        return graph
