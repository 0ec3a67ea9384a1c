"""The lmms-eval task made of the held-out rows: a config whose functions read the documents that `heldout` wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ANSWERED = "answered"  # the harness wants a number of each question; its score is worked out where all answers are


def task_config(name: str, documents: Path, max_new_tokens: int) -> dict[str, Any]:
    """An lmms-eval task config: greedy answers of at most `max_new_tokens`; counted is the share that says anything."""
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(documents)}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_visual": media,
        "doc_to_text": question,
        "doc_to_target": target,
        "process_results": score,
        "generation_kwargs": {"max_new_tokens": max_new_tokens, "temperature": 0, "do_sample": False, "until": []},
        "metric_list": [{"metric": ANSWERED, "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
    }


def media(document: Mapping[str, Any]) -> list[Any]:
    """What the document shows: its images, or its clip of a video, not decoded yet."""
    from components.evaluate.answering.ask import ImageFile
    from plm_model.records.record import VideoClip

    if document["video"]:
        return [VideoClip.from_dict(json.loads(document["video"]))]
    return [ImageFile(path) for path in document["images"] or ()]


def question(document: Mapping[str, Any]) -> str:
    text: str = document["question"]
    return text


def target(document: Mapping[str, Any]) -> str:
    text: str = document["target"]
    return text


def score(document: Mapping[str, Any], answers: Sequence[str]) -> dict[str, float]:
    return {ANSWERED: float(bool(answers[0].strip()))}
