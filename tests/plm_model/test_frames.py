from __future__ import annotations

import logging
import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from plm_model import frames
from plm_model.frames import VideoError, counted_table, frame_table, pyav_frames, read_frames
from tests.plm_model.video_files import number_of, picture, write_video

OPEN_GROUPS = {"g": 12, "bf": 3, "x264-params": "open-gop=1:bframes=3:keyint=12"}
VARYING = np.cumsum(np.random.default_rng(0).uniform(0.01, 0.2, 60)).tolist()

MADE: dict[str, Callable[[Path], Path]] = {
    "b-frames": lambda place: write_video(place / "b.mp4", 60, options={"g": 12, "bf": 3}),
    "one long group": lambda place: write_video(place / "l.mp4", 120, options={"g": 1000, "bf": 2, "sc_threshold": 0}),
    "variable rate mp4": lambda place: write_video(place / "v.mp4", 60, times=VARYING, options={"g": 20, "bf": 2}),
    "variable rate mkv": lambda place: write_video(place / "v.mkv", 60, times=VARYING, options={"g": 20, "bf": 2}),
    "start at 5 s": lambda place: write_video(place / "s.mp4", 30, times=[5 + n / 30 for n in range(30)]),
    "webm": lambda place: write_video(place / "w.webm", 30, codec="libvpx-vp9", options={"g": 12, "cpu-used": 8}),
    "bt.709": lambda place: write_video(place / "c.mp4", 12, colorspace=1, options={"g": 12}),
    "open groups": lambda place: write_video(place / "o.mp4", 60, options=OPEN_GROUPS),
    "hevc": lambda place: write_video(
        place / "h.mp4", 30, codec="libx265", options={"x265-params": "keyint=12:log-level=0"}
    ),
    "avi": lambda place: write_video(place / "a.avi", 40, codec="mpeg4", options={"g": 12, "bf": 2}),
    "mpeg-ts": lambda place: write_video(place / "t.ts", 40, options={"g": 12, "bf": 2}),
    "raw h264": lambda place: write_video(place / "r.h264", 40, options={"g": 12, "bf": 2}),
}
EXACT_IN_DECORD = (
    "b-frames",
    "one long group",
    "variable rate mp4",
    "variable rate mkv",
    "start at 5 s",
    "webm",
    "bt.709",
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("videos")
    return {name: make(place) for name, make in MADE.items()}


def numbers(table: frames.FrameTable) -> list[int]:
    return [round(place * (table.count - 1) / 6) for place in range(7)]


@pytest.mark.parametrize("kind", MADE)
def test_frames_are_those_that_were_asked_for(files: dict[str, Path], kind: str) -> None:
    table = frame_table(files[kind])
    asked = numbers(table)
    assert [number_of(frame) for frame in read_frames(files[kind], table, asked)] == asked


@pytest.mark.parametrize("kind", EXACT_IN_DECORD)
def test_both_libraries_give_the_same_pictures(files: dict[str, Path], kind: str) -> None:
    pytest.importorskip("decord")
    table = frame_table(files[kind])
    assert table.decord_is_exact
    decord = list(frames.decord_frames(files[kind], table.count, numbers(table)))
    pyav = list(pyav_frames(files[kind], table, numbers(table)))
    assert len(decord) == len(pyav) == 7
    assert max(int(np.abs(a.astype(int) - b).max()) for a, b in zip(decord, pyav, strict=True)) <= 2


@pytest.mark.parametrize("kind", sorted(MADE.keys() - set(EXACT_IN_DECORD)))
def test_files_in_which_decord_seeks_wrongly_are_left_to_pyav(files: dict[str, Path], kind: str) -> None:
    assert not frame_table(files[kind]).decord_is_exact


@pytest.mark.parametrize("kind", ["b-frames", "open groups", "avi", "variable rate mkv"])
def test_seeking_gives_what_decoding_from_the_start_gives(files: dict[str, Path], kind: str) -> None:
    table = frame_table(files[kind])
    assert table.count == counted_table(files[kind]).count
    with av.open(str(files[kind])) as container:
        convert = frames.ColorConversion()
        every = [convert(frame) for frame in container.decode(video=0)]
    for number in (table.count - 1, table.count // 2, 13):
        (found,) = pyav_frames(files[kind], table, [number])
        assert (found == every[number]).all()


def test_colours_follow_the_matrix_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "red.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.colorspace = 1  # BT.709
        planes = np.full((72, 64), 63, np.uint8)  # 63, 102, 240 is pure red there
        planes[48:60], planes[60:] = 102, 240
        container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, "yuv420p")))
        container.mux(stream.encode())
    (frame,) = pyav_frames(path, frame_table(path), [0])
    assert np.abs(frame[20, 20].astype(int) - (255, 0, 0)).max() <= 2


def test_turned_video_comes_out_upright(files: dict[str, Path], tmp_path: Path) -> None:
    data = bytearray(files["b-frames"].read_bytes())
    matrix = data.index(b"tkhd") + 44  # of the track header, version 0
    one = 1 << 16
    data[matrix : matrix + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)  # a quarter clockwise
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(data)
    table = frame_table(turned)
    (frame,) = read_frames(turned, table, [5])
    (stored,) = pyav_frames(files["b-frames"], table, [5])
    assert (frame == np.rot90(stored, -1)).all()


def test_frames_outside_an_edit_list_do_not_count(files: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "edited.mp4"
    with (
        av.open(str(files["b-frames"])) as whole,
        av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as cut,
    ):
        stream = cut.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(whole.streams.video[0]):
            if packet.size:
                packet.pts, packet.dts = packet.pts - CUT, packet.dts - CUT
                packet.stream = stream
                cut.mux(packet)
    table = frame_table(path)
    assert (table.count, table.decord_is_exact) == (45, False)
    assert [number_of(frame) for frame in read_frames(path, table, [0, 20, 44])] == [15, 35, 59]


CUT = 15 * 90_000 // 30


def test_what_decord_cannot_open_is_decoded_by_pyav_and_said(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    decord = pytest.importorskip("decord")

    def refuse(*_: object, **__: object) -> None:
        raise decord.DECORDError("cannot open")

    monkeypatch.setattr(decord, "VideoReader", refuse)
    path = files["b-frames"]
    with caplog.at_level(logging.WARNING):
        assert [number_of(frame) for frame in read_frames(path, frame_table(path), [3, 50])] == [3, 50]
    assert "b.mp4: decord cannot decode it (cannot open); PyAV does" in caplog.text


def test_without_decord_pyav_decodes_and_it_is_said_once(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "decord", None)
    frames.imported_decord.cache_clear()
    path = files["b-frames"]
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert [number_of(frame) for frame in read_frames(path, frame_table(path), [3, 50])] == [3, 50]
    frames.imported_decord.cache_clear()
    assert caplog.text.count("decord is not installed") == 1


def playlist(place: Path, video: Path) -> Path:
    path = place / "list.mp4"
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{video}\n#EXT-X-ENDLIST\n")
    return path


def fast_start(place: Path, video: Path) -> Path:
    """The same video with its index in front, so that it can be opened when the end is missing."""
    path = place / "fast.mp4"
    with av.open(str(video)) as whole, av.open(str(path), "w", options={"movflags": "faststart"}) as moved:
        stream = moved.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(whole.streams.video[0]):
            if packet.size:
                packet.stream = stream
                moved.mux(packet)
    return path


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda place, video: place / "missing.mp4", "no such file"),
        (lambda place, video: place, "no such file"),
        (lambda place, video: put(place, b""), "not a video that can be read"),
        (lambda place, video: put(place, b"text" * 99), "not a video that can be read"),
        (lambda place, video: put(place, video.read_bytes()[:3000]), "not a video that can be read"),
        (
            lambda place, video: put(place, fast_start(place, video).read_bytes()[:-5000]),
            "the video is cut short after",
        ),
        (lambda place, video: playlist(place, video), "not a video that can be read"),
        (lambda place, video: png(place), "not a video that can be read"),
        (lambda place, video: sound(place), "the file has no video in it"),
        (lambda place, video: sound(place, "libx264"), "the video has no frames"),
    ],
    ids=["missing", "folder", "empty", "text", "no index", "cut short", "playlist", "image", "sound", "no frames"],
)
def test_what_is_no_video_is_refused_with_the_reason(
    files: dict[str, Path], tmp_path: Path, break_it: Callable[[Path, Path], Path], message: str
) -> None:
    with pytest.raises(VideoError, match=message):
        frame_table(break_it(tmp_path, files["b-frames"]))


def put(place: Path, data: bytes) -> Path:
    path = place / "broken.mp4"
    path.write_bytes(data)
    return path


def png(place: Path) -> Path:
    Image.fromarray(picture(1)).save(place / "image.png")
    return place / "image.png"


def sound(place: Path, *video: str) -> Path:
    """A file with a second of silence, and with an empty track for each codec in `video`."""
    path = place / "sound.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000)
        for codec in video:
            track = container.add_stream(codec, rate=30)
            track.width, track.height, track.pix_fmt = 64, 48, "yuv420p"
        for _ in range(16):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1000), np.float32), "fltp", "mono")
            frame.sample_rate = 16_000
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
