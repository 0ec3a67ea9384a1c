"""Which frames stand for a clip: by number where the rate is constant, else by the frames' own times."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from plm_model.media.frame_table import VideoError, frame_table
from plm_model.media.sampling import clip_frames, sample_times
from plm_model.media.video import read_clip
from tests.plm_model.video_files import number_of, write_video

# Ten frames a second apart, then 30 a second for ten seconds: a screen recorder's file.
RECORDER = [float(n) for n in range(10)] + [10 + n / 30 for n in range(300)]
# A phone: 30 a second that drop to 24 in the dark, half-way.
PHONE = [n / 30 for n in range(250)] + [250 / 30 + n / 24 for n in range(250)]


def shown(path: Path, limit: int = 32, notes: set[str] | None = None, **clip: float) -> list[int]:
    """The numbers that the sampled frames carry in their pixels."""

    def number(frame: Image.Image) -> int:
        return number_of(np.asarray(frame))

    return read_clip(path, limit, number, clip.get("start"), clip.get("end"), notes=notes)


@pytest.mark.case("D4")
@pytest.mark.parametrize("name", ["recorder.mp4", "recorder.mkv"])
def test_a_clip_of_a_variable_rate_is_frames_by_their_own_times(tmp_path: Path, name: str) -> None:
    path = write_video(tmp_path / name, len(RECORDER), times=RECORDER, options={"g": 50})
    assert frame_table(path).rate is None
    notes: set[str] = set()
    assert shown(path, notes=notes, start=2, end=5) == [2, 3, 4, 5]
    assert notes == {"variable_rate"}
    # Every 1/7 s from 12.0 to 13.0 s, what is shown then.
    assert shown(path, 8, start=12, end=13) == [70, 74, 78, 82, 87, 91, 95, 100]
    assert shown(path, 4, start=0, end=9.5) == [0, 3, 6, 9]  # ten grid points, thinned
    with pytest.raises(VideoError, match=r"start_time 21 s is after the end of the video \(310 frames, 20\.\d+ s\)"):
        shown(path, start=21)


@pytest.mark.case("D4")
def test_the_last_second_of_a_phones_video_is_its_last_second(tmp_path: Path) -> None:
    path = write_video(tmp_path / "phone.mp4", len(PHONE), times=PHONE, options={"g": 100})
    found = shown(path, 8, start=15, end=16)
    assert (found[0], found[-1]) == (410, 434)  # 250 + 24 * (15 - 250/30), and a second later


@pytest.mark.case("D4")
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi"])
@pytest.mark.parametrize("late", [0, 100])
def test_a_constant_rate_has_the_originals_numbers_wherever_it_starts(tmp_path: Path, name: str, late: int) -> None:
    codec = "mpeg4" if name == "a.avi" else "libx264"
    times = [late + n / 10 for n in range(20)] if codec != "mpeg4" else None
    path = write_video(tmp_path / name, 20, fps=10, times=times, codec=codec)
    notes: set[str] = set()
    assert frame_table(path).rate == pytest.approx(10, abs=0.6)
    assert shown(path, notes=notes, start=1, end=1.5) == [10, 11, 12, 13, 14, 15]
    assert not notes


@pytest.mark.case("D4")
def test_an_end_within_the_first_frame_is_that_frame_and_not_the_whole_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 20, fps=10)
    assert shown(path, start=0, end=0.05) == [0, 1]
    assert shown(path, start=0, end=0) == shown(path) == list(range(20))


def without_duration(place: Path) -> Path:
    """What a browser records: WebM that is written to a pipe, with neither a duration nor a rate, frames when they came."""
    times = [n * 0.25 for n in range(8)] + [2 + n / 20 for n in range(40)]
    whole = write_video(place / "whole.webm", 48, codec="libvpx-vp9", times=times, options={"cpu-used": 8})
    path = place / "browser.webm"
    with av.open(str(whole)) as read, open(path, "wb") as file:
        pipe = type("Pipe", (), {"write": lambda self, data: file.write(data)})()
        with av.open(pipe, "w", "webm", options={"live": "1"}) as cut:
            stream = cut.add_stream_from_template(read.streams.video[0])
            for packet in read.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    cut.mux(packet)
    return path


@pytest.mark.case("D4")
def test_a_browsers_recording_without_duration_has_its_own_times(tmp_path: Path) -> None:
    path = without_duration(tmp_path)
    with av.open(str(path)) as container:
        assert container.duration is None
    assert shown(path, start=1, end=2) == [4, 5, 6, 7, 8]
    assert shown(path, start=3.5, end=3.6) == [38, 39, 40]
    with pytest.raises(VideoError, match=r"start_time 5 s is after the end of the video \(48 frames, 4\.\d\d s\)"):
        shown(path, start=5)


def test_times_of_a_gap_of_a_minute() -> None:
    seconds = np.array([n / 10 for n in range(10)] + [60 + n / 10 for n in range(10)])
    assert sample_times(seconds, 32, 60, 61) == list(range(10, 20))
    assert sample_times(seconds, 32, 30, 31) == [
        9,
        10,
    ]  # what is shown all that time, and the next, as for any clip of one


@pytest.mark.parametrize(("start", "end"), [(-1, None), (0, math.nan), (math.inf, None)])
def test_times_that_are_none_are_refused(start: float, end: float | None) -> None:
    with pytest.raises(VideoError, match="it must be a number of seconds, not negative"):
        sample_times(np.arange(5.0), 4, start, end)


@pytest.mark.parametrize("write", [lambda path: write_video(path, 1), lambda path: write_video(path, 2, fps=1)])
def test_one_or_two_frames_have_a_rate(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    table = frame_table(write(tmp_path / "few.mp4"))
    assert clip_frames(table, 8) == list(range(table.count))
