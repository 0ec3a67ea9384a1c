"""Any frame of a video file by its number, exactly: the same picture whichever library decodes it, however the file is built.

Frames are numbered from 0 in the order in which they are shown. A pass over the packets (no decoding) finds how many there
are, when each is shown and where decoding may start. decord decodes them where its seeking is exact: MP4 and Matroska
files whose key frames come in the order in which they are shown. Elsewhere (open groups of pictures, AVI, MPEG-TS, edit
lists, turned videos), or where decord cannot open the file or is not installed, PyAV decodes, with the same colours.

Every call opens its own reader and closes it, so none is shared between processes.
"""

from __future__ import annotations

import logging
import math
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from plm_model.images import MAX_PIXELS

Source = str | os.PathLike[str]

# Only files that hold their own pictures: a playlist (HLS, DASH, concat) would open whatever it names.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,h264,hevc,m4v,ivf"
DECORD_CONTAINERS = ("mov", "matroska")
log = logging.getLogger(__name__)


class VideoError(ValueError):
    """A file that is no video, has no frames or is damaged, or a clip that is not in it; the message says which."""


class UnshownFrame(Exception):
    """A packet that was counted as a frame gives none: only decoding them all tells the frames apart."""


@dataclass(frozen=True)
class FrameTable:
    """The frames of a file. `times` says when each is shown, in the stream's unit; None where only decoding finds out.

    `keys` are the key frames' (time shown, time to seek to), ascending. Pictures are to be turned by `quarter_turns`
    anticlockwise.
    """

    count: int
    fps: float
    times: tuple[int, ...] | None
    keys: tuple[tuple[int, int], ...] = ()
    quarter_turns: int = 0
    decord_is_exact: bool = False


def frame_table(source: Source) -> FrameTable:
    """The frames of a video file, from its packets; VideoError when it is no video, is cut short or has no frame."""
    shown: list[int | None] = []
    keys: list[tuple[int, int | None, int | None]] = []  # place in `shown`, time shown, time decoded
    hidden, turns = 0, None
    with opened(source) as (container, stream):
        for packet in container.demux(stream):
            if turns is None:  # only a decoded frame knows how it is to be turned
                turns = next((round(frame.rotation / 90) % 4 for frame in packet.decode()), None)
            if not packet.size:
                continue
            if packet.is_corrupt:
                raise VideoError(f"the video is cut short after {len(shown)} of its frames")
            if packet.is_discard:
                hidden += 1
                continue
            if packet.is_keyframe:
                keys.append((len(shown), packet.pts, packet.dts))
            shown.append(packet.pts)
        fps, kind = frame_rate(stream), container.format.name
    rank = {time: number for number, time in enumerate(sorted(time for time in shown if time is not None))}
    if turns is None or len(rank) != len(shown):  # no frame, some without a time, or a time twice
        return counted_table(source)
    in_order = all(place == rank[time] for place, time, _ in keys)
    return FrameTable(
        count=len(shown),
        fps=fps,
        times=tuple(rank),
        keys=tuple(sorted((time, time if decoded is None else decoded) for _, time, decoded in keys)),
        quarter_turns=turns,
        decord_is_exact=in_order and not hidden and not turns and kind.split(",")[0] in DECORD_CONTAINERS,
    )


def counted_table(source: Source) -> FrameTable:
    """The frames of a video file, counted by decoding all of them; VideoError when there is none."""
    with opened(source) as (container, stream):
        turns = [round(frame.rotation / 90) % 4 for frame in container.decode(stream)]
        fps = frame_rate(stream)
    if not turns:
        raise VideoError("the video has no frames")
    return FrameTable(len(turns), fps, times=None, quarter_turns=turns[0])


def read_frames(source: Source, table: FrameTable, numbers: Sequence[int]) -> Iterator[np.ndarray]:
    """The frames with these ascending numbers, one after the other: RGB, upright, uint8 [height, width, 3].

    UnshownFrame when the table counts frames that are not there, VideoError when one cannot be decoded.
    """
    left = list(numbers)
    if table.decord_is_exact:
        for frame in decord_frames(source, table.count, numbers):
            left.pop(0)
            yield frame
    if left:
        for frame in pyav_frames(source, table, left):
            yield np.rot90(frame, table.quarter_turns)


def decord_frames(source: Source, count: int, numbers: Sequence[int]) -> Iterator[np.ndarray]:
    """The frames as long as decord can give them; it ends early, and says so, where it cannot."""
    decord = imported_decord()
    if decord is None:
        return
    try:
        reader = decord.VideoReader(os.fspath(source), num_threads=1)
        if len(reader) != count:
            log.warning("%s: decord counts %d of %d frames; PyAV decodes it", source, len(reader), count)
            return
        for number in numbers:
            yield reader[number].asnumpy()
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
        key = bisect_right(table.keys, (time, math.inf)) - 1
        if key >= 0 and table.keys[key][0] > at:
            container.seek(table.keys[key][1], stream=stream)
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
        return self.graph.pull().to_ndarray()

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


@contextmanager
def opened(source: Source) -> Iterator[tuple[Any, Any]]:
    """PyAV's container and its video stream; every error of the library inside the block becomes a VideoError."""
    try:
        import av
    except ImportError as error:
        raise VideoError("videos need the package av; install it") from error
    if not Path(source).is_file():
        raise VideoError("no such file")
    try:
        with av.open(os.fspath(source), container_options={"format_whitelist": CONTAINERS}) as container:
            stream = video_stream(container)
            stream.codec_context.thread_count = 1
            yield container, stream
    except (av.FFmpegError, UnicodeDecodeError) as error:
        raise VideoError(f"not a video that can be read: {getattr(error, 'strerror', None) or error}") from error


def video_stream(container: Any) -> Any:
    from av.stream import Disposition

    found = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not found:
        raise VideoError("the file has no video in it")
    stream = found[0]
    if stream.width * stream.height > MAX_PIXELS:
        raise VideoError(f"frames too large: {stream.width}x{stream.height} is more than {MAX_PIXELS:,} pixels")
    return stream


def frame_rate(stream: Any) -> float:
    """Frames a second, on average where they vary."""
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    if not rate:
        raise VideoError("the video names no frame rate")
    return float(rate)
