"""What is inside the data root: one answer for every step, given at ingest with the user's file and line."""

from __future__ import annotations

import base64
import json
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.ingest.nearest import Nearest
from components.media_files.path import OutsideRoot, path_below

Chain = Callable[..., Any]


@pytest.mark.case("D13")
@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("images/7.png", "images/7.png"),
        ("./a/../images//7.png", "images/7.png"),
        ("/data/images/7.png", "images/7.png"),
        ("/data//b/../images/7.png", "images/7.png"),
        ("/mnt/d/7.png", "7.png"),
        ("file:///data/a%20b.png", "a b.png"),
        ("file://localhost/data/7.png", "7.png"),
        ("a%20b.png", "a%20b.png"),
        ("C:/x.png", "C:/x.png"),
        ("~/x.png", "~/x.png"),
        ("..\\x.png", "..\\x.png"),
        ("12:30/x.png", "12:30/x.png"),
    ],
)
def test_a_path_below_the_root_is_made_relative(written: str, meant: str) -> None:
    assert path_below(written, ("/data", "/mnt/d/")) == meant


@pytest.mark.case("D13")
def test_a_uri_below_a_bucket_is_made_relative() -> None:
    assert path_below("s3://bucket/set/a/7.png", ("s3://bucket/set",)) == "a/7.png"
    with pytest.raises(OutsideRoot, match=r"'s3://bucket/settle/7\.png' is a URL"):
        path_below("s3://bucket/settle/7.png", ("s3://bucket/set",))
    with pytest.raises(OutsideRoot, match="leads out of the data root"):
        path_below("s3://bucket/set/../7.png", ("s3://bucket/set",))


@pytest.mark.case("D13")
@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("/etc/passwd", r"^'/etc/passwd' is an absolute path that leads out of the data root /data$"),
        ("/data/../etc/passwd", "an absolute path"),
        ("/database/7.png", "an absolute path"),
        ("../x.png", "leads out of the data root; write a path relative to it"),
        ("a/../../x.png", "leads out of the data root"),
        ("a/..", "the data root itself, not a file in it"),
        ("https://example.com/x.png", "is a URL; download the file and write its path below the data root"),
        ("HTTP://example.com/x.png", "is a URL"),
        ("gs://bucket/x.png", "is a URL"),
        ("file:///etc/passwd", "an absolute path"),
        ("file://host/data/7.png", "is a URL"),
    ],
)
def test_what_is_no_path_below_the_root_is_said(written: str, said: str) -> None:
    with pytest.raises(OutsideRoot, match=said):
        path_below(written, ("/data",))


@pytest.mark.case("D18")
@pytest.mark.parametrize("start", ["", "data:image/png;base64,"])
def test_an_image_as_text_is_said_in_one_short_line(start: str) -> None:
    text = start + base64.b64encode(b"\xff\xd8\xff\xe0" * 90_000).decode()
    with pytest.raises(OutsideRoot, match=r"an image as text \([0-9,]+ characters of base64\), not the name") as caught:
        path_below(text)
    assert len(str(caught.value)) < 150


def test_a_long_name_of_letters_and_slashes_is_a_name() -> None:
    name = "images/" + "Abcd/" * 60 + "picture"
    assert path_below(name) == name


@pytest.mark.case("D18")
def test_a_name_is_cut_in_a_message() -> None:
    with pytest.raises(OutsideRoot) as caught:
        path_below("../" + "x.y" * 5000)
    assert len(str(caught.value)) < 200


ON_DISK = [
    "a b.png",
    "Upper.PNG",
    "w/x.png",
    "q.png",
    unicodedata.normalize("NFD", "übung.png"),
    "e%20f.png",
    "deep/in/z.jpg",
]


@pytest.mark.case("D18")
@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("a%20b.png", "a b.png"),
        ("e f.png", "e%20f.png"),
        ("upper.png", "Upper.PNG"),
        ("w\\x.png", "w/x.png"),
        (".\\q.png", "q.png"),
        (" q.png ", "q.png"),
        ("q.png\r", "q.png"),
        ('"q.png"', "q.png"),
        (unicodedata.normalize("NFC", "übung.png"), unicodedata.normalize("NFD", "übung.png")),
        ("z.jpg", "deep/in/z.jpg"),
        ("deep/in/z", "deep/in/z.jpg"),
        ("deep/in/z.png", "deep/in/z.jpg"),
        ("C:\\data\\q.png", "q.png"),
    ],
)
def test_a_missing_file_with_another_spelling_is_suggested(written: str, meant: str) -> None:
    assert Nearest(ON_DISK).hint(written) == f"; did you mean {meant!r}?"


@pytest.mark.case("D18")
def test_where_two_could_be_meant_none_is_suggested() -> None:
    assert Nearest(["a/1.png", "b/1.png"]).hint("1.png") == ""
    assert Nearest(["A.png", "a.png"]).hint("a.PNG") == ""


@pytest.mark.case("D18")
@pytest.mark.parametrize(
    ("written", "said"),
    [("D:\\x\\no.png", "a Windows drive"), ("~/no.png", "`~` is not expanded"), ("0.png;1.png", "JSONL with a list")],
)
def test_a_name_that_no_file_has_is_explained(written: str, said: str) -> None:
    assert said in Nearest(["x.png"]).hint(written)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for name in ("a.png", "C:/x.png", "~x.png", "~/y.png", "sub/b.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def talk(**keys: Any) -> dict[str, Any]:
    return {"conversations": [{"from": "human", "value": "?"}, {"from": "assistant", "value": "!"}], **keys}


def write(folder: Path, *rows: dict[str, Any]) -> dict[str, str]:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"kind": "folder", "path": str(folder), "annotations": "rows.jsonl"}


def lines(artifact: Any, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in artifact.open(name).read().splitlines()]


@pytest.mark.case("D13")
def test_rows_name_files_inside_in_any_way_and_others_are_rejected(ingested: Chain, folder: Path) -> None:
    inside = {
        str(folder / "sub/b.png"): "sub/b.png",
        f"file://{folder}/a.png": "a.png",
        "C:/x.png": "C:/x.png",
        "~x.png": "~x.png",
        "~/y.png": "~/y.png",
        "sub//../a.png": "a.png",
    }
    outside = ["https://example.com/a.png", "/etc/hostname", "../data/a.png", "C:/none.png"]
    raw, dataset = ingested(write(folder, *(talk(image=name) for name in (*inside, *outside))))
    assert [row["image"] for row in lines(dataset, "train.jsonl")] == list(inside.values())
    assert raw.open("sub/b.png").read() == b"sub/b.png"
    rejects = lines(dataset, "rejected.jsonl")
    assert [(reject["file"], reject["line"]) for reject in rejects] == [("rows.jsonl", n) for n in range(7, 11)]
    assert [reject["row"]["image"] for reject in rejects] == outside
    assert [reject["reason"] for reject in rejects] == [reject["reason"] for reject in lines(raw, "rejected.jsonl")]


@pytest.mark.case("D13")
def test_a_root_that_is_a_link_is_known_under_both_names(ingested: Chain, folder: Path) -> None:
    link = folder.parent / "link"
    os.symlink(folder, link)
    rows = write(folder, talk(image=str(link / "a.png")), talk(image=str(folder / "sub/b.png")))
    _, dataset = ingested(rows | {"path": str(link)})
    assert [row["image"] for row in lines(dataset, "train.jsonl")] == ["a.png", "sub/b.png"]


@pytest.mark.case("D13")
def test_a_copy_of_a_folder_with_relative_paths_is_the_same_artifact(ingested: Chain, folder: Path) -> None:
    import shutil

    first, _ = ingested(write(folder, talk(image="a.png")))
    copy = shutil.copytree(folder, folder.parent / "copy")
    second, _ = ingested({"kind": "folder", "path": str(copy), "annotations": "rows.jsonl"})
    assert first.digest == second.digest


@pytest.mark.case("D12")
@pytest.mark.parametrize("none", ["", "  ", None, []])
def test_an_empty_name_is_none(ingested: Chain, folder: Path, none: Any) -> None:
    (folder / "v.mp4").write_bytes(b"video")
    rows = write(folder, talk(id="i", image="a.png", video=none), talk(id="v", image=none, video="v.mp4"))
    raw, dataset = ingested(rows)
    image, video = lines(dataset, "train.jsonl")
    assert (image["image"], image.get("video")) == ("a.png", None)
    assert (video.get("image"), video["video"]) == (None, "v.mp4")
    assert raw.counts["rejected"] == dataset.counts["rejected"] == 0


@pytest.mark.case("D12")
def test_a_csv_holds_images_and_clips_with_times(ingested: Chain, folder: Path) -> None:
    (folder / "v.mp4").write_bytes(b"video")
    (folder / "labels.csv").write_text(
        "image,video,start_time,end_time,label\n,v.mp4,8,9.5,light\n,v.mp4,,1,dark\na.png,,,,x\n,v.mp4,0:08,9,late\n"
    )
    _, dataset = ingested({"kind": "folder", "path": str(folder)})
    clips = [(row["video"], row.get("start_time"), row.get("end_time")) for row in lines(dataset, "train.jsonl")[:2]]
    assert clips == [("v.mp4", 8, 9.5), ("v.mp4", None, 1)]
    image = lines(dataset, "train.jsonl")[2]
    assert image["image"] == "a.png" and image.get("video") is None
    (reject,) = lines(dataset, "rejected.jsonl")
    assert (reject["line"], reject["reason"]) == (5, "`start_time` is '0:08'; it must be a number of seconds")


@pytest.mark.case("D12")
def test_a_csv_may_hold_videos_alone(ingested: Chain, folder: Path) -> None:
    (folder / "v.mp4").write_bytes(b"video")
    (folder / "labels.csv").write_text("video,label\nv.mp4,light\nw.mp4,dark\n")
    raw, dataset = ingested({"kind": "folder", "path": str(folder)})
    (row,) = lines(dataset, "train.jsonl")
    assert row["video"] == "v.mp4" and row["conversations"][1]["value"] == "light"
    (reject,) = lines(raw, "rejected.jsonl")
    assert (reject["line"], reject["reason"]) == (3, "'w.mp4': no such file")
