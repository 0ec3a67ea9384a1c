"""The published rows of PLM-Video-Human become rows that PLM trains on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.errors import Unusable, UserError
from components.formats.plm_video_human import convert_file, rcap, rdcap, rtloc, shown

ROW = {"uid": 5, "video": "sav_1.mp4", "masklet_id": 2, "total_frames": 240}
EVENT = {"caption": "A dog\nruns.", "start_frame": 60, "end_frame": 119}
BOXES = {("sav_1.mp4", 2): {"0": [1, 2, 30, 40], "1": None, "60": [2, 2, 31, 40]}}
FGQA = {
    "qa_id": "q1",
    "segment_id": "s1",
    "question": "How is it cut?",
    "answer": "With a knife.",
    "metadata": {
        "source_video_id": "abc",
        "source_dataset": "coin",
        "source_start_time": 3.5,
        "source_end_time": 9.0,
    },
}


def said(record: dict[str, Any]) -> tuple[str, str]:
    question, answer = record["conversations"]
    assert (question["from"], answer["from"]) == ("human", "assistant")
    return question["value"], answer["value"]


@pytest.mark.parametrize(
    ("frame", "total", "expected"),
    [(0, 240, 0), (60, 240, 8), (119, 240, 15), (239, 240, 31), (240, 240, 31), (7, 8, 28)],
)
def test_frames_are_counted_on_the_axis_of_32(frame: int, total: int, expected: int) -> None:
    assert shown(frame, total) == expected


def test_a_caption_of_a_region_names_its_frames_and_the_true_total() -> None:
    record = rcap({**ROW, **EVENT}, BOXES)
    question, answer = said(record)
    assert "240 frames" in question and "frame 8 to frame 15" in question and answer == "A dog runs."
    assert record["video"] == "sav_1.mp4" and record["bbox_map"] == {"0": [1, 2, 30, 40], "60": [2, 2, 31, 40]}


def test_a_localization_asks_for_the_frames() -> None:
    question, answer = said(rtloc({**ROW, **EVENT}, BOXES))
    assert "A dog runs." in question and "240" not in question and answer == "[8, 15]"


def test_dense_captions_are_one_line_an_event() -> None:
    events = [EVENT, {"caption": "Out of view.", "start_frame": 120, "end_frame": 240}]
    _, answer = said(rdcap({**ROW, "dense_captions": events}, BOXES))
    assert answer == "[8, 15]: A dog runs.\n[16, 31]: Out of view."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"masklet_id": 3}, "no boxes for masklet 3 of sav_1.mp4"),
        ({"caption": " "}, "`caption`"),
        ({"end_frame": 20}, "`start_frame` 60 and `end_frame` 20"),
        ({"end_frame": 241}, "within 240 frames"),
        ({"total_frames": 0}, "`total_frames` is 0"),
        ({"video": None}, "`video`"),
    ],
)
def test_a_row_that_cannot_be_used_says_why(change: dict[str, Any], message: str) -> None:
    with pytest.raises(Unusable, match=message):
        rcap({**ROW, **EVENT, **change}, BOXES)


def test_a_parquet_file_becomes_jsonl_and_rejects(tmp_path: Path) -> None:
    rows = [{**ROW, **EVENT}, {**ROW, **EVENT, "masklet_id": 9}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    boxes = [{"video": video, "masklet_id": masklet, "bbox": box} for (video, masklet), box in BOXES.items()]
    (tmp_path / "boxes.jsonl").write_text("".join(json.dumps(box) + "\n" for box in boxes))
    counts = convert_file("rtloc", tmp_path / "rows.parquet", tmp_path / "out.jsonl", tmp_path / "boxes.jsonl")
    assert counts == {"rows": 1, "rejected": 1}
    assert json.loads((tmp_path / "out.jsonl").read_text()) == rtloc(rows[0], BOXES)
    (reject,) = [json.loads(line) for line in (tmp_path / "out.jsonl.rejected.jsonl").read_text().splitlines()]
    assert (reject["row"], reject["reason"]) == (2, "no boxes for masklet 9 of sav_1.mp4")


def test_a_fine_grained_question_is_about_its_part_of_the_video(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(FGQA) + "\n" + json.dumps({**FGQA, "metadata": {}}) + "\n")
    place = "{source_dataset}/{source_video_id}.mp4"
    counts = convert_file("fgqa", tmp_path / "rows.jsonl", tmp_path / "out.jsonl", video=place)
    record = json.loads((tmp_path / "out.jsonl").read_text())
    assert counts == {"rows": 1, "rejected": 1} and said(record) == ("How is it cut?", "With a knife.")
    assert (record["video"], record["start_time"], record["end_time"]) == ("coin/abc.mp4", 3.5, 9.0)


@pytest.mark.parametrize(("task", "message"), [("rcap", "needs --boxes"), ("fgqa", "needs --video")])
def test_what_a_task_needs_is_asked_for(task: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        convert_file(task, tmp_path / "rows.jsonl", tmp_path / "out.jsonl")
