"""VSR: the task's functions. The schema of the data and its source stand in the YAML beside this file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from components.evaluate.benchmarks.choices import yes_or_no
from components.evaluate.benchmarks.media import media_file
from components.evaluate.benchmarks.published import documents, json_rows, required

Document = Mapping[str, Any]


def documents_of(files: Any) -> Any:
    rows = json_rows(files)
    for row in rows:
        required(row, "image", "caption", "label")
    return documents({"image": row["image"], "caption": row["caption"], "label": int(row["label"])} for row in rows)


def image(document: Document) -> list[Any]:
    from plm_model.media.images import decode_image

    return [decode_image(media_file("vsr", "images", document["image"]).read_bytes())]


def question(document: Document, kwargs: Mapping[str, Any] | None = None) -> str:
    return f'Is this true of the picture: "{document["caption"]}" {(kwargs or {}).get("post_prompt", "")}'.strip()


def target(document: Document) -> str:
    return "yes" if document["label"] else "no"


def score(document: Document, answers: Sequence[str]) -> dict[str, float]:
    return {"accuracy": float(yes_or_no(answers[0]) is bool(document["label"]))}
