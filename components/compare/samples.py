"""The answers of two evaluations to the same questions, joined by id."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from components.artifacts.artifact import Artifact
from components.errors import UserError
from plm_model.records.record import VideoClip

Outcome = Literal["fixed", "broken", "wrong", "right"]


@dataclass(frozen=True)
class AnsweredTwice:
    """One held-out question with the answers of both models. Paths of `images` and `video` are below the media root."""

    id: str
    images: tuple[str, ...]
    question: str
    target: str
    before: str
    after: str
    right_before: bool
    right_after: bool
    video: VideoClip | None = None

    @property
    def outcome(self) -> Outcome:
        if self.right_before != self.right_after:
            return "fixed" if self.right_after else "broken"
        return "right" if self.right_after else "wrong"


def read_pairs(before: Artifact, after: Artifact) -> list[AnsweredTwice]:
    """Join `samples.jsonl` of two evaluations. Raises UserError when they did not answer the same questions."""
    earlier, later = read_samples(before), read_samples(after)
    if not earlier:
        raise UserError(f"{before.uri}/samples.jsonl: holds no answers; evaluate on at least one held-out row")
    if alone := sorted(earlier.keys() ^ later.keys()):
        raise UserError(
            f"the two evaluations answered different questions ({len(alone)} of them, such as {alone[0]!r}); "
            "evaluate both models on the same data and with the same evaluate.limit"
        )
    return [joined(row, later[key]) for key, row in earlier.items()]


def read_samples(artifact: Artifact) -> dict[str, Mapping[str, Any]]:
    with artifact.open("samples.jsonl", "r") as file:
        rows = [json.loads(line) for line in file if line.strip()]
    return {row["id"]: row for row in rows}


def joined(before: Mapping[str, Any], after: Mapping[str, Any]) -> AnsweredTwice:
    image = before["image"]
    return AnsweredTwice(
        id=before["id"],
        images=(image,) if isinstance(image, str) else tuple(image or ()),
        question=before["question"],
        target=before["target"],
        before=before["answer"],
        after=after["answer"],
        right_before=bool(before["correct"]),
        right_after=bool(after["correct"]),
        video=VideoClip.from_dict(before["video"]) if before.get("video") else None,
    )
