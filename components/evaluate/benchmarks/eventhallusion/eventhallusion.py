"""EventHallusion: the task's functions. The schema of the data and its source stand in the YAML beside this file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from components.evaluate.benchmarks.choices import yes_or_no
from components.evaluate.benchmarks.media import media_file
from components.evaluate.benchmarks.published import documents, json_rows, of_each_kind, required

Document = Mapping[str, Any]
KINDS = ("entire", "interleave", "misleading")  # as the YAML lists them


def documents_of(files: Any) -> Any:
    return documents(
        document
        for kind, file in of_each_kind(files, KINDS, "EventHallusion")
        for row in json_rows([file])
        for document in asked(kind, row)
    )


def asked(kind: str, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The questions about a video."""
    required(row, "id", "questions")
    return [
        {"kind": kind, "video": row["id"], "question": each["question"], "answer": each["answer"].strip(". ").lower()}
        for each in row["questions"]
    ]


def video(document: Document) -> list[Any]:
    return [str(media_file("eventhallusion", document["kind"], f"{document['video']}.mp4"))]


def question(document: Document, kwargs: Mapping[str, Any] | None = None) -> str:
    return f"{document['question']}\n{(kwargs or {}).get('post_prompt', '')}".strip()


def score(document: Document, answers: Sequence[str]) -> dict[str, float]:
    return {"accuracy": float(yes_or_no(answers[0]) is {"yes": True, "no": False}[document["answer"]])}
