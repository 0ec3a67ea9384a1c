"""TVQA: the task's functions. The schema of the data and its source stand in the YAML beside this file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from components.evaluate.benchmarks.choices import LETTERS, choice_question, chosen
from components.evaluate.benchmarks.media import media_file
from components.evaluate.benchmarks.published import documents, json_rows, required

Document = Mapping[str, Any]
ANSWERS = ("a0", "a1", "a2", "a3", "a4")


def documents_of(files: Any) -> Any:
    return documents(document_of(row) for row in json_rows(files))


def document_of(row: Mapping[str, Any]) -> dict[str, Any]:
    required(row, "qid", "q", *ANSWERS, "answer_idx", "vid_name")
    kept = {"qid": row["qid"], "question": row["q"], "vid_name": row["vid_name"]}
    return {**kept, "options": [row[name] for name in ANSWERS], "answer": LETTERS[int(row["answer_idx"])]}


def clip(document: Document) -> list[Any]:
    return [str(media_file("tvqa", f"{document['vid_name']}.mp4"))]


def question(document: Document, kwargs: Mapping[str, Any] | None = None) -> str:
    return choice_question(document["question"], document["options"], kwargs)


def score(document: Document, answers: Sequence[str]) -> dict[str, float]:
    return {"accuracy": float(chosen(answers[0], document["options"]) == document["answer"])}
