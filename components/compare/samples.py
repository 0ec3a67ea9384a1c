"""The answers of two or three evaluations to the same questions, joined by id."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from components.artifacts.artifact import Artifact
from components.errors import UserError
from plm_model.records.record import VideoClip

Outcome = Literal["fixed", "broken", "wrong", "right"]


@dataclass(frozen=True)
class Answer:
    """What a model said, and its score."""

    text: str
    score: float


@dataclass(frozen=True)
class Compared:
    """One question with the answers of both models, and of the champion where there is one.

    Paths of `images` and `video` are below the media root; questions of one `cluster` show the same.
    """

    id: str
    images: tuple[str, ...]
    question: str
    target: str
    before: Answer
    after: Answer
    cluster: str = ""
    champion: Answer | None = None
    video: VideoClip | None = None
    best: float = 1.0

    @property
    def outcome(self) -> Outcome:
        """Better, worse, or as good as before, which is right only with the best score that there is."""
        if self.before.score != self.after.score:
            return "fixed" if self.after.score > self.before.score else "broken"
        return "right" if self.after.score >= self.best else "wrong"


def read_compared(before: Artifact, after: Artifact, file: str, best: float) -> list[Compared]:
    """Join the samples of two evaluations. Raises UserError when they did not answer the same questions."""
    earlier, later = read_samples(before, file), read_samples(after, file)
    if not earlier:
        raise UserError(f"{before.uri}/{file}: holds no answers; evaluate on at least one held-out row")
    require_same(earlier, later)
    return [joined(row, later[key], best) for key, row in earlier.items()]


def with_champion(rows: Sequence[Compared], champion: Artifact, file: str) -> list[Compared]:
    """The same with the champion's answers. Raises UserError when it did not answer the same questions."""
    present = read_samples(champion, file)
    require_same({row.id: row for row in rows}, present)
    return [replace(row, champion=answer_of(present[row.id])) for row in rows]


def read_samples(artifact: Artifact, file: str) -> dict[str, Mapping[str, Any]]:
    with artifact.open(file, "r") as lines:
        rows = [json.loads(line) for line in lines if line.strip()]
    return {row["id"]: row for row in rows}


def require_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    if alone := sorted(one.keys() ^ other.keys()):
        raise UserError(
            f"the evaluations answered different questions ({len(alone)} of them, such as {alone[0]!r}); "
            "evaluate the models on the same data and with the same evaluate.limit"
        )


def joined(before: Mapping[str, Any], after: Mapping[str, Any], best: float) -> Compared:
    image = before["image"]
    return Compared(
        id=before["id"],
        images=(image,) if isinstance(image, str) else tuple(image or ()),
        question=before["question"],
        target=before["target"],
        before=answer_of(before),
        after=answer_of(after),
        cluster=before["cluster"],
        video=VideoClip.from_dict(before["video"]) if before.get("video") else None,
        best=best,
    )


def answer_of(row: Mapping[str, Any]) -> Answer:
    return Answer(row["answer"], float(row["score"]))
