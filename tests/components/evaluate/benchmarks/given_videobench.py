"""Tiny data sets of PLM-VideoBench, as lmms-eval's tasks read them, and of its judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.components.evaluate.benchmarks.given import FRAMES, Given, jsonl, rows

VERDICTS = {  # what stands in a question to the judge -> what it answers
    "he turns left": '{"pred": "yes", "score": 5}',
    "he turns round": '{"pred": "no", "score": 0}',
    "a man runs": '{"score": 8, "explanation": "close"}',
    "a man sits": '{"score": 3, "explanation": "far"}',
    "dense one": '{"score": 10, "explanation": "same"}',
    "dense two": '{"score": 5, "explanation": "half"}',
}


def videobench() -> list[Given]:
    two = {"video": "f.mp4", "question": "How?", "options": {"option_0": "fast", "option_1": "slow"}}
    fgqa = rows(
        two,
        {"uid": "1", "qa_uid": "a", "answer": "fast"},
        {"uid": "2", "qa_uid": "a", "answer": "slow"},
        {"uid": "3", "qa_uid": "b", "answer": "fast"},
        {"uid": "4", "qa_uid": "b", "answer": "slow"},
    )
    sgqa = rows({"video": "g.mp4", "question": "Where to?", "answer": "left"}, {"uid": "1"}, {"uid": "2"})
    masked = {
        "video": "sav_1.mp4",
        "masklet_id": 3,
        "total_frames": 32,
        "start_frame": 0,
        "end_frame": 10,
        "caption": "runs",
    }
    rtloc = rows(masked, {"uid": "1"}, {"uid": "2"}, {"uid": "3"})
    dense = [
        [{"start_frame": 0, "end_frame": 10, "caption": "one"}],
        [{"start_frame": 0, "end_frame": 10, "caption": "x"}, {"start_frame": 20, "end_frame": 30, "caption": "y"}],
    ]
    rdcap = [{**masked, "uid": str(n), "dense_captions": events} for n, events in enumerate(dense)]
    boxes = {"video": "sav_1.mp4", "masklet_id": 3, "bbox": {str(n): [2, 2, 9, 9] for n in range(FRAMES)}}
    metadata = Given(
        "", "", "", "", [], [], (), {"facebook/PLM-VideoBench/metadata/metadata_test.jsonl": jsonl([boxes])}
    )
    sav = ["plm_videobench/sav/sav_1.mp4"]
    return [
        part("fgqa", fgqa, ["(A) fast", "B", "A", "A"], ["plm_videobench/fgqa/f.mp4"]),
        part("sgqa", sgqa, ["he turns left", "he turns round"], ["plm_videobench/sgqa/g.mp4"]),
        part("rtloc", rtloc, ["[0, 10]", "[0, 6]", "in the middle"], sav),
        part("rcap", rtloc[:2], ["a man runs", "a man sits"], sav),
        part("rdcap", rdcap, ["[0, 10]: dense one", "[0, 10]: dense two"], sav),
        metadata,
    ]


def part(name: str, of: list[dict[str, Any]], said: list[str], videos: Sequence[str]) -> Given:
    return Given(f"{name}_test", "facebook/PLM-VideoBench", name, "test", of, said, videos)
