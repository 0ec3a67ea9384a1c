from __future__ import annotations

import logging
import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from plm_model.media import frames
from plm_model.media.frame_table import FrameTable, VideoError, counted_table, frame_table
from plm_model.media.frames import pyav_frames, read_frames
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


def numbers(table: FrameTable) -> list[int]:
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
    decord = list(frames.decord_frames(files[kind], table, numbers(table)))
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


# (a, b, c, d) of a display matrix, and what it makes of a picture.
MATRICES: dict[str, tuple[tuple[float, float, float, float], Callable[[np.ndarray], np.ndarray]]] = {
    "a quarter clockwise": ((0, 1, -1, 0), lambda picture: np.rot90(picture, -1)),
    "a half": ((-1, 0, 0, -1), lambda picture: np.rot90(picture, 2)),
    "a quarter anticlockwise": ((0, -1, 1, 0), np.rot90),
    "mirrored": ((-1, 0, 0, 1), np.fliplr),
    "upside down": ((1, 0, 0, -1), np.flipud),
    "transposed": ((0, 1, 1, 0), lambda picture: picture.transpose(1, 0, 2)),
    "transposed the other way": ((0, -1, -1, 0), lambda picture: np.rot90(picture.transpose(1, 0, 2), 2)),
    "a sloppy quarter": ((0.01, 1, -1, 0.01), lambda picture: np.rot90(picture, -1)),
    "half a quarter": ((0.7, 0.7, -0.7, 0.7), lambda picture: picture),
    "nothing": ((0, 0, 0, 0), lambda picture: picture),
    "a line": ((1, 0, 0, 0), lambda picture: picture),
}


@pytest.mark.case("D6")
@pytest.mark.parametrize("kind", MATRICES)
def test_a_display_matrix_is_taken_as_the_matrix_that_it_is(files: dict[str, Path], tmp_path: Path, kind: str) -> None:
    (a, b, c, d), shown = MATRICES[kind]
    data = bytearray(files["b-frames"].read_bytes())
    place = data.index(b"tkhd") + 44  # of the track header, version 0
    entries = [round(65536 * entry) for entry in (a, b, 0, c, d, 0, 0, 0)]
    data[place : place + 36] = struct.pack(">9i", *entries, 1 << 30)
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(data)
    (frame,) = read_frames(turned, frame_table(turned), [5])
    (stored,) = read_frames(files["b-frames"], frame_table(files["b-frames"]), [5])
    assert frame.shape == shown(stored).shape
    assert np.abs(frame.astype(int) - shown(stored)).max() <= 2


@pytest.mark.case("D5")
@pytest.mark.parametrize("name", ["r.mp4", "r.mkv"])
@pytest.mark.parametrize("bframes", [0, 2])
def test_where_pictures_are_refreshed_bit_by_bit_frames_are_still_those_asked_for(
    tmp_path: Path, name: str, bframes: int
) -> None:
    refresh = {"x264-params": f"intra-refresh=1:keyint=12:bframes={bframes}"}
    path = write_video(tmp_path / name, 60, options=refresh)
    table = frame_table(path)
    for asked in ([13, 14, 16], [5, 30, 40, 50], [23, 59]):
        assert [number_of(frame) for frame in read_frames(path, table, asked)] == asked


@pytest.mark.case("D5")
@pytest.mark.parametrize("width", [2, 8, 16, 24, 48, 72])
def test_narrow_videos_have_their_own_pictures(tmp_path: Path, width: int) -> None:
    pictures = [np.ascontiguousarray(picture(number, 96, 64)[:, :width]) for number in range(4)]
    path = tmp_path / "narrow.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=4, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = width, 64, "yuv444p"
        for number, pixels in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    found = list(read_frames(path, frame_table(path), range(4)))
    assert [frame.shape for frame in found] == [(64, width, 3)] * 4
    assert max(np.abs(one.astype(int) - other).max() for one, other in zip(found, pictures, strict=True)) <= 3


@pytest.mark.case("D5")
def test_of_two_video_streams_the_first_is_taken_whichever_is_larger(tmp_path: Path) -> None:
    path = tmp_path / "two.mp4"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=10, options={"qp": "10"}) for _ in range(2)]
        for stream, (width, height) in zip(streams, ((96, 64), (320, 240)), strict=True):
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(12):
            for stream, shift in zip(streams, (0, 500), strict=True):
                frame = av.VideoFrame.from_ndarray(picture(number + shift, stream.width, stream.height), "rgb24")
                frame.pts = number
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode())
    found = list(read_frames(path, frame_table(path), [0, 5, 11]))
    assert [(frame.shape, number_of(frame)) for frame in found] == [((64, 96, 3), number) for number in (0, 5, 11)]


@pytest.mark.case("D1")
@pytest.mark.parametrize(("name", "codec"), [("a.mpg", "mpeg1video"), ("a.flv", "flv1"), ("a.vob", "mpeg2video")])
def test_containers_that_crashed_the_library_are_read(tmp_path: Path, name: str, codec: str) -> None:
    path = write_video(tmp_path / name, 30, fps=25, codec=codec, options={"b": 4_000_000, "g": 10})
    assert [number_of(frame) for frame in read_frames(path, frame_table(path), [0, 7, 29])] == [0, 7, 29]


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
