from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from plm_model.families.plm.settings import ProcessorConfig
from plm_model.families.plm.tiles import video_tiles
from plm_model.media import frames, video
from plm_model.media.frame_table import FrameTable, UnshownFrame, VideoError, counted_table
from plm_model.media.frames import pyav_frames
from plm_model.media.sampling import sample_frames
from plm_model.media.video import decode_frame, encode_frame, read_clip, squash_frame
from tests.plm_model.video_files import number_of, picture, write_video

EIGHT = ProcessorConfig(max_video_frames=8)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds at 6 frames a second, 96 x 64."""
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", 12, fps=6, options={"g": 6, "bf": 2})


@pytest.fixture(scope="module")
def pictures(clip: Path) -> list[np.ndarray]:
    return list(pyav_frames(clip, counted_table(clip), range(12)))


@pytest.mark.parametrize(
    ("count", "fps", "chosen"),
    [
        (300, 30, [round(n * 299 / 31) for n in range(32)]),
        (960, 30, list(range(0, 960, 30))),
        (3000, 30, [30 * round(n * 99 / 31) for n in range(32)]),
        (20, 30, list(range(20))),
        (73, 6, [round(n * 72 / 31) for n in range(32)]),
        (210, 6, [6 * round(n * 34 / 31) for n in range(32)]),
        (1, 30, [0]),
        (32, 30, list(range(32))),
        (100, 0.4, [round(n * 99 / 31) for n in range(32)]),
    ],
)
def test_frames_are_sampled_by_the_rule(count: int, fps: float, chosen: list[int]) -> None:
    assert sample_frames(count, fps, 32) == chosen


def test_numbers_of_the_examples() -> None:
    assert sample_frames(300, 30, 32)[-1] == 299
    assert sample_frames(3000, 30, 32)[:3] == [0, 90, 180] and sample_frames(3000, 30, 32)[-1] == 2970
    assert sample_frames(210, 6, 32)[:3] == [0, 6, 12] and sample_frames(210, 6, 32)[-1] == 204


@pytest.mark.parametrize(
    ("start", "end", "chosen"),
    [
        (1, None, [30, 50, 69, 89]),
        (None, 1, [0, 10, 20, 30]),
        (1, 2, [30, 40, 50, 60]),
        (2, 1, [30, 40, 50, 60]),
        (1, 1, [30, 31]),
        (0, 99, [0, 30, 59, 89]),
        (2.9667, 2.9667, [89]),
    ],
)
def test_clip_is_cut_at_start_and_end(start: float | None, end: float | None, chosen: list[int]) -> None:
    assert sample_frames(90, 30, 4, start, end) == chosen


def test_one_frame_is_the_first() -> None:
    assert sample_frames(300, 30, 1) == [0]


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (3, None, r"start_time 3 s is after the end of the video \(90 frames, 3.00 s\)"),
        (-1, None, "start_time is -1"),
        (0, math.nan, "end_time is nan"),
        (math.inf, None, "start_time is inf"),
    ],
)
def test_clip_that_is_not_in_the_video_is_refused(start: float, end: float | None, message: str) -> None:
    with pytest.raises(VideoError, match=message):
        sample_frames(90, 30, 4, start, end)


def originals_pixels(frames: Sequence[np.ndarray], side: int) -> np.ndarray:
    """What the original makes of frames: torchvision's Resize on a uint8 tensor of all of them."""
    from torchvision.transforms import InterpolationMode, Resize

    resize = Resize([side, side], InterpolationMode.BICUBIC, antialias=True)
    resized: np.ndarray = resize(torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)).numpy()
    return resized


@pytest.mark.case("E14")
def test_each_frame_is_one_tile_of_the_originals_pixels(clip: Path, pictures: list[np.ndarray]) -> None:
    tiles = video_tiles(clip, EIGHT, 28)
    assert (tiles.shape, tiles.dtype) == ((8, 3, 28, 28), np.uint8)
    assert (tiles == originals_pixels([pictures[number] for number in sample_frames(12, 6, 8)], 28)).all()


@pytest.mark.case("E14")
@pytest.mark.parametrize("size", [(640, 360), (37, 501), (1920, 1080), (28, 28), (8, 5)])
def test_frames_of_any_size_have_the_originals_pixels(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    smooth = picture(7, max(80, size[0]), max(8, size[1]))
    for frame in (noise, smooth):
        assert (squash_frame(frame, 56) == originals_pixels([frame], 56)[0]).all()


def test_start_and_end_choose_the_frames(clip: Path) -> None:
    whole = video_tiles(clip, ProcessorConfig(max_video_frames=12), 28)
    assert (video_tiles(clip, EIGHT, 28, start=1.0, end=1.5) == whole[6:10]).all()


# Ten frames a second apart, then 30 a second, as a screen recorder leaves them; a phone's 30 a second, 24 in the dark.
RECORDED = [*range(10), *(10 + n / 30 for n in range(90))]
PHONE = [*(n / 30 for n in range(120)), *(4 + n / 24 for n in range(96))]


@pytest.mark.case("D4")
@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
@pytest.mark.parametrize(
    ("times", "start", "end", "seconds"),
    [
        (RECORDED, 2, 5, [2, 3, 4, 5]),
        (RECORDED, 8, 9, [8, 9]),
        (RECORDED, 11, 12, [11 + n / 7 for n in range(8)]),
        (PHONE, 6, 7, [6 + n / 7 for n in range(8)]),
        ([60 * n for n in range(4)] + [240 + n / 30 for n in range(30)], 60, 180, [60, 120, 180]),
    ],
)
def test_frames_of_a_clip_are_those_shown_then_where_the_rate_varies(
    tmp_path: Path, name: str, times: list[float], start: float, end: float, seconds: list[float]
) -> None:
    path = write_video(tmp_path / name, len(times), times=times)
    notes: set[str] = set()
    found = read_clip(path, 8, lambda frame: number_of(np.asarray(frame)), start, end, notes=notes)
    assert found == [max(n for n, time in enumerate(times) if time <= at + 0.002) for at in seconds]
    assert notes == {"variable_rate"}


@pytest.mark.case("E14")
def test_box_is_red_four_pixels_wide_and_on_its_frame_alone(clip: Path, pictures: list[np.ndarray]) -> None:
    every = ProcessorConfig(max_video_frames=12)
    box = (20, 12, 70, 50)
    marked = video_tiles(clip, every, 28, boxes={5: box})
    plain = video_tiles(clip, every, 28)
    drawn = pictures[5].copy()
    drawn[12:51, 20:71] = (255, 0, 0)
    drawn[16:47, 24:67] = pictures[5][16:47, 24:67]
    assert (marked[5] == originals_pixels([drawn], 28)[0]).all()
    assert [number for number in range(12) if (marked[number] != plain[number]).any()] == [5]


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ({0: (0, 0, 9, 9), 13: (0, 0, 9, 9)}, "bbox_map names frame 13, but the video has 12 frames"),
        ({1: (0, 0, 9, 9)}, "bbox_map has no box on any of the 8 sampled frames"),
        ({0: (96, 0, 99, 9)}, r"frame 0: the box from \(96, 0\) to \(99, 9\) is outside the image of 96x64"),
    ],
)
def test_boxes_of_another_video_are_refused(clip: Path, boxes: dict[int, tuple[float, ...]], message: str) -> None:
    numbers = sample_frames(12, 6, 8)
    assert 1 not in numbers and 0 in numbers
    with pytest.raises(VideoError, match=f"^v.mp4: {message}"):
        video_tiles(clip, EIGHT, 28, boxes=boxes, name="v.mp4")  # type: ignore[arg-type]


def test_error_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"none\.mp4: no such file"):
        video_tiles(tmp_path / "none.mp4", EIGHT, 28)


def test_frames_that_packets_promise_in_vain_are_counted_by_decoding(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = video_tiles(clip, EIGHT, 28)
    table = counted_table(clip)
    too_many = FrameTable(14, table.fps, times=tuple(range(14)), keys=((0, 0),))
    monkeypatch.setattr(video, "frame_table", lambda source: too_many)
    with pytest.raises(UnshownFrame):
        list(pyav_frames(clip, too_many, [13]))
    assert (video_tiles(clip, EIGHT, 28) == expected).all()


@pytest.mark.parametrize(("quality", "most"), [(None, 0), (95, 40)])
def test_stored_frame_is_the_tile_again(clip: Path, quality: int | None, most: int) -> None:
    tile = video_tiles(clip, EIGHT, 56)[0]
    again = decode_frame(encode_frame(tile, quality))
    assert (again.shape, again.dtype) == (tile.shape, np.uint8)
    assert np.abs(again.astype(int) - tile).max() <= most


def memory_growth(path: Path, decodes: int) -> float:
    """MiB that the process has grown by after so many decodes, the first fifth apart."""
    process = psutil.Process()
    for number in range(decodes):
        if number == decodes // 5:
            before = process.memory_info().rss
        video_tiles(path, EIGHT, 28)
    return (process.memory_info().rss - before) / 2**20


@pytest.mark.parametrize("library", ["decord", "PyAV"])
def test_hundreds_of_decodes_take_no_more_memory(clip: Path, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if library == "PyAV":
        monkeypatch.setattr(frames, "imported_decord", lambda: None)
    assert memory_growth(clip, 200) < 8


@pytest.mark.e2e
@pytest.mark.parametrize("library", ["decord", "PyAV"])
def test_thousands_of_decodes_take_no_more_memory(clip: Path, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if library == "PyAV":
        monkeypatch.setattr(frames, "imported_decord", lambda: None)
    assert memory_growth(clip, 5000) < 16
