"""VideoHallucer: the task's functions. The schema of the data and its source stand in the YAML beside this file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from components.evaluate.benchmarks.choices import yes_or_no
from components.evaluate.benchmarks.media import media_file
from components.evaluate.benchmarks.published import documents, json_rows, of_each_kind, required

Document = Mapping[str, Any]
KINDS = (
    "object_relation",
    "temporal",
    "semantic_detail",
    "external_factual",
    "external_nonfactual",
)  # as the YAML lists them


def documents_of(files: Any) -> Any:
    return documents(
        document
        for kind, file in of_each_kind(files, KINDS, "VideoHallucer")
        for number, row in enumerate(json_rows([file]))
        for document in pair(kind, number, row)
    )


def pair(kind: str, number: int, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The two questions of a row; both show the first one's video, as their authors' evaluation does."""
    required(row, "basic", "hallucination")
    common = {"kind": kind, "pair": f"{kind} {number}", "video": row["basic"]["video"]}
    asked = (row["basic"], row["hallucination"])
    return [{**common, "question": each["question"], "answer": each["answer"].strip().lower()} for each in asked]


def video(document: Document) -> list[Any]:
    return [str(media_file("videohallucer", document["kind"], "videos", document["video"]))]


def question(document: Document, kwargs: Mapping[str, Any] | None = None) -> str:
    return f"{document['question']}\n{(kwargs or {}).get('post_prompt', '')}".strip()


def score(document: Document, answers: Sequence[str]) -> dict[str, Any]:
    right = float(yes_or_no(answers[0]) is {"yes": True, "no": False}[document["answer"]])
    return {
        "accuracy": right,
        "videohallucer": {"kind": document["kind"], "pair": document["pair"], "score": right},
    }


def pairs_right(items: Sequence[Mapping[str, Any]]) -> float:
    """The mean over kinds of the share of pairs of which both answers are right.

    Kind a: right and right, right and wrong; kind b: right and right. a has 1 pair of 2, b has 1 of 1: 0.75.
    """
    kinds: dict[str, dict[str, float]] = {}
    for item in items:
        pairs = kinds.setdefault(item["kind"], {})
        pairs[item["pair"]] = min(pairs.get(item["pair"], 1.0), item["score"])
    return sum(sum(pairs.values()) / len(pairs) for pairs in kinds.values()) / len(kinds)
