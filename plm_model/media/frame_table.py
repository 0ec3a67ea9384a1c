"""Which frames a video file has and when each is shown, found in its packets: the numbers that everything else speaks of.

Frames are numbered from 0 in the order in which they are shown. A pass over the packets (no decoding) finds how many there
are, when each is shown and where decoding may start; that it may is tried out. Where times are missing, all are decoded.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from plm_model.media.display_matrix import AS_STORED, Orientation, orientation_of
from plm_model.media.file_kind import file_kind
from plm_model.media.image_file import MAX_PIXELS

Source = str | os.PathLike[str]
Key = tuple[int, int]  # time shown, time to seek to

# Only files that hold their own pictures: a playlist (HLS, DASH, concat) would open whatever it names.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,h264,hevc,m4v,ivf"
DECORD_CONTAINERS = ("mov", "matroska")
CLOCK = 0.0015  # seconds by which times may be off: files round them to milliseconds


class VideoError(ValueError):
    """A file that is no video, has no frames or is damaged, or a clip that is not in it; the message says which."""


class UnshownFrame(Exception):
    """A packet that was counted as a frame gives none: only decoding them all tells the frames apart."""


@dataclass(frozen=True)
class FrameTable:
    """The frames of a file, stored as pictures of `size` (width, height).

    `fps` is the rate that the file names, a mean. `times` says when each frame is shown, in units of `tick` seconds; None
    where only decoding finds out. `keys` are the key frames from which decoding gives that frame and all later ones.
    """

    count: int
    fps: float
    times: tuple[int, ...] | None
    keys: tuple[Key, ...] = ()
    tick: float = 0.0
    size: tuple[int, int] = (0, 0)
    orientation: Orientation = AS_STORED
    decord_is_exact: bool = False

    @cached_property
    def seconds(self) -> np.ndarray | None:
        """When each frame is shown, float64 [count], the first at 0; None where nobody says."""
        if self.times is None or not self.tick:
            return None
        times = np.array(self.times, np.float64)
        seconds: np.ndarray = (times - times[0]) * self.tick
        return seconds

    @cached_property
    def rate(self) -> float | None:
        """Frames a second where they come at a constant rate, which is the file's own where that is true; else None."""
        if self.seconds is None or self.count == 1:
            return self.fps
        mean = (self.count - 1) / self.seconds[-1]
        return next((rate for rate in (self.fps, mean) if is_rate(self.seconds, rate)), None)


def is_rate(seconds: np.ndarray, rate: float) -> bool:
    """Whether every frame is within half a frame of its place at a constant rate."""
    off = np.abs(seconds - np.arange(len(seconds)) / rate)
    return bool(off.max() <= 0.5 / rate + CLOCK)


def frame_table(source: Source) -> FrameTable:
    """The frames of a video file, from its packets; VideoError when it is no video, is cut short or has no frame."""
    shown: list[int | None] = []
    keys: list[tuple[int, Any, Any]] = []  # place in `shown`, time shown, time decoded
    hidden, turned = 0, None
    with opened(source) as (container, stream):
        for packet in container.demux(stream):
            if turned is None:  # only a decoded frame knows how it is to be turned
                turned = next((orientation_of(frame) for frame in packet.decode()), None)
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
        rank = {time: number for number, time in enumerate(sorted(time for time in shown if time is not None))}
        if turned is not None and len(rank) == len(shown):  # a frame, each with a time of its own
            starts = sorted((time, time if decoded is None else decoded) for _, time, decoded in keys)
            seekable = can_seek(container, stream, starts)
            in_order = all(place == rank[time] for place, time, _ in keys)
            return FrameTable(
                count=len(shown),
                fps=frame_rate(stream, tuple(rank)),
                times=tuple(rank),
                keys=tuple(starts if seekable else starts[:1]),
                tick=float(stream.time_base),
                size=(stream.width, stream.height),
                orientation=turned,
                decord_is_exact=seekable and in_order and not hidden and decord_may_read(container, turned),
            )
    return counted_table(source)


def can_seek(container: Any, stream: Any, keys: Sequence[Key]) -> bool:
    """Whether decoding from a key frame gives that frame: where a picture is refreshed bit by bit it begins later."""
    for time, at in {keys[1], keys[-1]} if len(keys) > 1 else ():
        container.seek(at, stream=stream)
        first = next((frame.pts for frame in container.decode(stream) if frame.pts is None or frame.pts >= time), None)
        if first != time:
            return False
    return True


def decord_may_read(container: Any, turned: Orientation) -> bool:
    """decord knows two containers, takes the stream that it likes best, and turns nothing."""
    kind = container.format.name.split(",")[0]
    return kind in DECORD_CONTAINERS and len(container.streams.video) == 1 and turned == AS_STORED


def counted_table(source: Source) -> FrameTable:
    """The frames of a video file, counted by decoding all of them; VideoError when there is none."""
    with opened(source) as (container, stream):
        turned = [orientation_of(frame) for frame in container.decode(stream)]
        if not turned:
            raise VideoError("the video has no frames")
        size = (stream.width, stream.height)
        return FrameTable(len(turned), frame_rate(stream, ()), times=None, size=size, orientation=turned[0])


def key_before(keys: Sequence[Key], time: int) -> Key | None:
    """The last key frame that is shown at that time or before."""
    place = bisect_right(keys, time, key=lambda key: key[0]) - 1
    return keys[place] if place >= 0 else None


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
        # `options=` would hand them to the streams, too, and crashes on MPEG program streams and FLV.
        with av.open(os.fspath(source), container_options={"format_whitelist": CONTAINERS}) as container:
            stream = video_stream(container)
            stream.codec_context.thread_count = 1
            yield container, stream
    except (av.FFmpegError, UnicodeDecodeError) as error:
        raise VideoError(f"not a video that can be read: {cause(source, error)}") from error


def cause(source: Source, error: Exception) -> str:
    """What the library says, and what the file is where its first bytes tell that it is no video."""
    said = str(getattr(error, "strerror", None) or error)
    with open(source, "rb") as file:
        kind = file_kind(file.read(1024))
    if not kind or kind.startswith("a video"):
        return said
    return f"{said}; it is {kind}" + (", which belongs under `image`" if kind.endswith(" picture") else "")


def video_stream(container: Any) -> Any:
    from av.stream import Disposition

    found = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not found:
        raise VideoError("the file has no video in it")
    stream = found[0]
    if stream.width * stream.height > MAX_PIXELS:
        raise VideoError(f"frames too large: {stream.width}x{stream.height} is more than {MAX_PIXELS:,} pixels")
    return stream


def frame_rate(stream: Any, times: Sequence[int]) -> float:
    """Frames a second that the file names, or its frames' times give, on average where they vary."""
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    if rate:
        return float(rate)
    if len(times) > 1:
        return (len(times) - 1) / float((times[-1] - times[0]) * stream.time_base)
    raise VideoError("the video names no frame rate")
