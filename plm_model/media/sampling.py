"""Which frames of a video stand for a clip: a grid of one a second, thinned or filled up to what the model takes.

Worked example, at 30 frames a second and at most 32: of 300 frames (10 s, too few grid points) 32 are taken evenly from all of
them, 0 … 299; of 960 frames the 32 grid points 0, 30, … 930; of 3,000 frames 32 of the 100 grid points, first and last
included: 0, 90, 180, … 2970. Where the rate varies, each point is a time, and stands for the frame that is shown then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from plm_model.media.frame_table import CLOCK, FrameTable, VideoError


def clip_frames(table: FrameTable, limit: int, start: float | None = None, end: float | None = None) -> list[int]:
    """Numbers of the frames that stand for the clip from `start` to `end` (seconds after the first frame), ascending.

    At most `limit`; VideoError when the clip is not in the video.
    """
    if table.rate is None and table.seconds is not None:
        return sample_times(table.seconds, limit, start, end)
    return sample_frames(table.count, table.rate or table.fps, limit, start, end)


def sample_frames(
    count: int, fps: float, limit: int, start: float | None = None, end: float | None = None
) -> list[int]:
    """The frames of a clip of a video of constant rate; VideoError when it is not in the video.

    A clip with more grid points than that is thinned evenly, ends included; one with fewer is sampled evenly from all of
    its frames. A start behind the end is taken for a swap; a clip without length is one frame longer, where there is one.
    An end of 0 is none, as in the original; an end within the first frame is that frame.
    """
    require_times(start, end)
    first = int((start or 0) * fps)
    if first >= count:
        raise behind_the_end(start, count, count / fps)
    last = min(int(end * fps), count - 1) if end else count - 1
    first, last = min(first, last), max(first, last)
    last = min(max(last, first + 1), count - 1)
    grid = range(first, last + 1, max(1, round(fps)))
    if len(grid) == limit:
        return list(grid)
    return evenly(grid if len(grid) > limit else range(first, last + 1), limit)


def sample_times(seconds: np.ndarray, limit: int, start: float | None = None, end: float | None = None) -> list[int]:
    """The same by the frames' own times, ascending from 0: a frame stands for the time until the next one is shown.

    Worked example: of ten frames a second apart, followed by 30 a second, the clip from 2 to 5 s is frames 2, 3, 4, 5. A clip
    sampled evenly is so in time; a frame that is shown at two of its points is taken once.
    """
    require_times(start, end)
    length = seconds[-1] + max(seconds[-1] - seconds[-2], seconds[-1] / (len(seconds) - 1))
    if (start or 0) >= length:
        raise behind_the_end(start, len(seconds), length)
    begin, stop = sorted((float(start or 0), float(min(end or seconds[-1], seconds[-1]))))
    first, last = int(places(seconds, begin)), int(places(seconds, stop))
    last = min(max(last, first + 1), len(seconds) - 1)
    stop = max(stop, seconds[last])
    grid = shown_at(seconds, begin + np.arange(int(stop - begin + CLOCK) + 1))
    if len(grid) >= limit:
        return evenly(grid, limit)
    if last + 1 - first <= limit:
        return list(range(first, last + 1))
    return shown_at(seconds, np.linspace(begin, stop, limit))


def shown_at(seconds: np.ndarray, times: np.ndarray) -> list[int]:
    """The numbers of the frames that are shown at some times, ascending, each once."""
    return [int(place) for place in np.unique(places(seconds, times))]


def places(seconds: np.ndarray, times: np.ndarray | float) -> np.ndarray:
    return (np.searchsorted(seconds, np.asarray(times) + CLOCK, side="right") - 1).clip(0)


def require_times(start: float | None, end: float | None) -> None:
    for key, seconds in (("start_time", start), ("end_time", end)):
        if seconds is not None and not 0 <= seconds < math.inf:
            raise VideoError(f"{key} is {seconds}; it must be a number of seconds, not negative")


def behind_the_end(start: float | None, count: int, length: float) -> VideoError:
    return VideoError(f"start_time {start:g} s is after the end of the video ({count} frames, {length:.2f} s)")


def evenly(numbers: Sequence[int], limit: int) -> list[int]:
    """At most `limit` of the numbers, evenly spaced, first and last included; halves are rounded to even."""
    chosen = min(limit, len(numbers))
    if chosen == 1:
        return [numbers[0]]
    return [numbers[round(place * (len(numbers) - 1) / (chosen - 1))] for place in range(chosen)]
