"""STAR: the task's functions. The schema of the data and its source stand in the YAML beside this file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from components.errors import UserError
from components.evaluate.benchmarks.choices import LETTERS, choice_question, chosen
from components.evaluate.benchmarks.media import media_file
from components.evaluate.benchmarks.published import documents, json_rows, required

Document = Mapping[str, Any]


def documents_of(files: Any) -> Any:
    return documents(document_of(row) for row in json_rows(files))


def document_of(row: Mapping[str, Any]) -> dict[str, Any]:
    required(row, "question_id", "question", "video_id", "start", "end", "answer", "choices")
    options = [choice["choice"] for choice in sorted(row["choices"], key=lambda choice: int(choice["choice_id"]))]
    if row["answer"] not in options:
        raise UserError(f"the answer of STAR's question {row['question_id']} is none of its choices")
    kept = {name: row[name] for name in ("question_id", "question", "video_id")}
    times = {"start": float(row["start"]), "end": float(row["end"])}
    return {**kept, **times, "options": options, "answer": LETTERS[options.index(row["answer"])]}


def clip(document: Document) -> list[Any]:
    from plm_model.records.record import VideoClip

    video = media_file("star", f"{document['video_id']}.mp4")
    return [VideoClip(str(video), document["start"], document["end"])]


def question(document: Document, kwargs: Mapping[str, Any] | None = None) -> str:
    return choice_question(document["question"], document["options"], kwargs)


def score(document: Document, answers: Sequence[str]) -> dict[str, float]:
    return {"accuracy": float(chosen(answers[0], document["options"]) == document["answer"])}
