"""CG-Bench with clues: the task's functions. The schema of the data and its source stand in the YAML beside this file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from math import floor
from typing import Any

from components.evaluate.benchmarks.choices import choice_question, chosen
from components.evaluate.benchmarks.media import media_file
from components.evaluate.benchmarks.published import documents, json_rows, required

Document = Mapping[str, Any]
Interval = Sequence[float]  # start and end in seconds
FOLDER = "cg_videos_720p"
FRAMES = 32


def documents_of(files: Any) -> Any:
    return documents(document_of(row) for row in json_rows(files))


def document_of(row: Mapping[str, Any]) -> dict[str, Any]:
    required(row, "qid", "video_uid", "question", "choices", "right_answer", "clue_intervals")
    kept = {name: row[name] for name in ("qid", "video_uid", "question")}
    clues = [[float(start), float(end)] for start, end in row["clue_intervals"]]
    return {**kept, "clues": clues, "options": list(row["choices"]), "answer": row["right_answer"]}


def frames(document: Document, kwargs: Mapping[str, Any] | None = None) -> list[Any]:
    """The frames of the clues' parts, as images in the order of time."""
    from plm_model.media.video import read_clip

    path = media_file(FOLDER, f"{document['video_uid']}.mp4")
    parts = merged(document["clues"])
    counts = shares([end - start for start, end in parts], int((kwargs or {}).get("frames", FRAMES)))
    return [
        image
        for (start, end), count in zip(parts, counts, strict=True)
        if count
        for image in read_clip(str(path), count, lambda image: image, start, end)
    ]


def merged(clues: Sequence[Interval]) -> list[tuple[float, float]]:
    """Intervals in order, those that touch as one: [4, 6], [1, 3], [2, 5] -> [1, 6]."""
    joined: list[tuple[float, float]] = []
    for start, end in sorted((min(clue), max(clue)) for clue in clues):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def shares(lengths: Sequence[float], count: int) -> list[int]:
    """`count` frames given out by length, so that no share is off by a whole frame: 3 of lengths 1 and 1 -> 2 and 1."""
    ends = list(accumulate(lengths))
    places = [0, *(floor(count * end / ends[-1] + 0.5) for end in ends)]
    return [after - before for before, after in pairwise(places)]


def question(document: Document, kwargs: Mapping[str, Any] | None = None) -> str:
    return choice_question(document["question"], document["options"], kwargs)


def score(document: Document, answers: Sequence[str]) -> dict[str, float]:
    return {"accuracy": float(chosen(answers[0], document["options"]) == document["answer"])}
