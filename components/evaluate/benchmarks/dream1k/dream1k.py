"""DREAM-1K: the task's functions. The schema of the data and its source stand in the YAML beside this file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from components.evaluate.benchmarks.dream1k.autodq import Unreadable, compared
from components.evaluate.benchmarks.judge import required_judge
from components.evaluate.benchmarks.media import media_file
from components.evaluate.benchmarks.published import documents, json_rows, required

Document = Mapping[str, Any]


def documents_of(files: Any) -> Any:
    return documents(document_of(row) for row in json_rows(files))


def document_of(row: Mapping[str, Any]) -> dict[str, Any]:
    required(row, "vid", "dataset", "text", "extra_info")
    described = {"reference": row["text"]["response"], "events": row["extra_info"]["events"]}
    return {"vid": str(row["vid"]), "source": row["dataset"], **described}


def video(document: Document) -> list[Any]:
    return [str(media_file("dream1k", f"{document['vid']}.mp4"))]


def question(document: Document, kwargs: Mapping[str, Any] | None = None) -> str:
    return str((kwargs or {})["prompt"])


def judged(document: Document, answers: Sequence[str]) -> dict[str, Any]:
    """Recall and precision of an answer, or what the judge said that cannot be read; JudgeError ends the evaluation."""
    entry: dict[str, Any] = {"source": document["source"]}
    try:
        both = compared(required_judge(), answers[0], document["reference"], document["events"])
    except Unreadable as reason:
        return {"dream1k": {**entry, "unreadable": str(reason)}}
    scores = {"recall": both.recall, "precision": both.precision, "f1": f1(both.recall, both.precision)}
    return {"dream1k": {**entry, **scores}}


def f1_of_means(items: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """F1 of recall and precision, each a mean over the videos of a source, then over sources; None where none was judged.

    Source a: recall 1 and 0, source b: recall 1; the mean is (0.5 + 1) / 2 = 0.75.
    """
    measured = [item for item in items if "unreadable" not in item]
    counts = {"num_instances": len(measured), "unreadable": len(items) - len(measured)}
    if not measured:
        return {"f1": None, "recall": None, "precision": None, **counts}
    recall, precision = mean_of_sources(measured, "recall"), mean_of_sources(measured, "precision")
    return {"f1": f1(recall, precision), "recall": recall, "precision": precision, **counts}


def mean_of_sources(items: Sequence[Mapping[str, Any]], key: str) -> float:
    sources: dict[str, list[float]] = {}
    for item in items:
        sources.setdefault(item["source"], []).append(item[key])
    return sum(sum(values) / len(values) for values in sources.values()) / len(sources)


def f1(recall: float, precision: float) -> float:
    return 2 * recall * precision / (recall + precision) if recall + precision else 0.0
