"""How2QA: the task's functions. The schema of the data and its source stand in the YAML beside this file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from components.errors import UserError
from components.evaluate.benchmarks.choices import LETTERS, choice_question, chosen
from components.evaluate.benchmarks.media import media_file
from components.evaluate.benchmarks.published import csv_rows, documents, position

Document = Mapping[str, Any]
COLUMNS = ("video_id", "part", "wrong_1", "wrong_2", "wrong_3", "question", "right")


def documents_of(files: Any) -> Any:
    return documents(document_of(row) for row in csv_rows(files, COLUMNS))


def document_of(row: Mapping[str, str]) -> dict[str, Any]:
    """A row as a question; `[1.5:4]` is the part from 1.5 to 4 seconds."""
    try:
        start, end = (float(second) for second in row["part"].strip("[] ").split(":"))
    except ValueError:
        raise UserError(f"{row['part']} of the video {row['video_id']} is no [start:end] in seconds") from None
    options = [row["wrong_1"], row["wrong_2"], row["wrong_3"]]
    place = position(f"{row['video_id']} {row['question']}", 4)
    options.insert(place, row["right"])
    times = {"start": start, "end": end}
    kept = {"video_id": row["video_id"], "question": row["question"]}
    return {**kept, **times, "options": options, "answer": LETTERS[place]}


def clip(document: Document) -> list[Any]:
    from plm_model.records.record import VideoClip

    video = media_file("how2qa", f"{document['video_id']}.mp4")
    return [VideoClip(str(video), document["start"], document["end"])]


def question(document: Document, kwargs: Mapping[str, Any] | None = None) -> str:
    return choice_question(document["question"], document["options"], kwargs)


def score(document: Document, answers: Sequence[str]) -> dict[str, float]:
    return {"accuracy": float(chosen(answers[0], document["options"]) == document["answer"])}
