"""The held-out rows as questions: what is asked, what the answer should be, and where the media lie on this machine.

A row that cannot be asked never ends an evaluation by itself: it is set aside with its reason, counted and named.
Every count closes: rows = asked + set aside + beyond the limit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from components.artifacts.artifact import Artifact
from components.errors import UserError
from components.media_files.root import MissingMedia, require_file
from plm_model.family import Codec
from plm_model.media.image_file import ImageError
from plm_model.media.video import VideoError
from plm_model.records.record import Record, RecordError, VideoClip, parse_record
from plm_model.records.turns import pair_turns

SHOWN = 3  # rows set aside that a line names
SHOWN_REASON = 300  # characters of a reason in a line
REFERENCES = "references"  # the key of a record that lists several right answers
FROM_LINE = "from_line"  # the key of a record that says which line of the user's file it was


@dataclass(frozen=True)
class Rejected:
    """A held-out row that cannot be evaluated, and why; `place` is the line of the user's own file, where that is known."""

    id: str
    reason: str
    place: str | None = None


@dataclass(frozen=True)
class Question:
    """One held-out row: its record, the first question that is answered, and the answer."""

    record: Record
    text: str
    target: str

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def image(self) -> Any:
        """The row's own value: a path below the media root, a list of them, or None."""
        return self.record.row.get("image")

    @property
    def images(self) -> tuple[str, ...]:
        return self.record.images

    @property
    def video(self) -> VideoClip | None:
        return self.record.video

    @property
    def references(self) -> tuple[str, ...]:
        """All right answers: what the row lists under `references`, else the answer of its conversation."""
        listed = self.record.row.get(REFERENCES)
        return tuple(map(str, listed)) if isinstance(listed, list) and listed else (self.target,)

    @property
    def place(self) -> str | None:
        """The line of the user's own file that it comes from, where the row says it."""
        return self.record.row.get(FROM_LINE)

    @property
    def media(self) -> tuple[str, ...]:
        """The files that are shown, below the media root."""
        return self.images if self.video is None else (self.video.path,)


@dataclass(frozen=True)
class HeldOut:
    """The held-out rows: questions, what is none and why, and how many there are, those beyond the limit included."""

    questions: list[Question]
    rejected: list[Rejected]
    rows: int

    @property
    def beyond_limit(self) -> int:
        """Rows that a limit leaves out."""
        return self.rows - len(self.questions) - len(self.rejected)


def read_questions(dataset: Artifact, limit: int | None) -> HeldOut:
    """The first `limit` rows of `test.jsonl` (all of them when None). Raises UserError when there is none."""
    questions: list[Question] = []
    rejected: list[Rejected] = []
    rows = 0
    with dataset.open("test.jsonl", "r") as file:
        for rows, line in enumerate(file, start=1):
            if limit is not None and rows > limit:
                continue
            try:
                questions.append(question_of(line))
            except (RecordError, json.JSONDecodeError) as error:
                id, place = name_of(line)
                rejected.append(Rejected(id or f"test.jsonl line {rows}", str(error), place))
    if not rows:
        raise UserError("there are no held-out rows to evaluate on; raise convert.test_fraction or add data")
    return HeldOut(questions, rejected, rows)


def question_of(line: str) -> Question:
    """The first question that is answered, and its answer; of a longer conversation the rest is not asked.

    RecordError when there is none.
    """
    record = parse_record(json.loads(line), accept_gpt_role=True)
    first = pair_turns(record.turns)[0]
    return Question(record, first.question, first.answer)


def name_of(line: str) -> tuple[str | None, str | None]:
    """The id of a row that is no question, and its line in the user's file, where it has them."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None, None
    return (str(row["id"]) if row.get("id") else None, row.get(FROM_LINE)) if isinstance(row, Mapping) else (None, None)


def answerable(
    questions: Sequence[Question], local: Mapping[str, Path], codec: Codec
) -> tuple[list[Question], list[Rejected]]:
    """Part the questions that a model can be asked from those that it cannot: damaged media, a prompt that is too long.

    `local` maps paths to files.
    """
    with ThreadPoolExecutor() as pool:
        reasons = list(pool.map(lambda question: hindrance(question, local, codec), questions))
    kept = [question for question, reason in zip(questions, reasons, strict=True) if reason is None]
    rejected = [
        Rejected(q.id, reason, q.place) for q, reason in zip(questions, reasons, strict=True) if reason is not None
    ]
    return kept, rejected


def hindrance(question: Question, local: Mapping[str, Path], codec: Codec) -> str | None:
    """Why a question cannot be put to a model, or None."""
    try:
        for rel in question.media:
            require_file(rel, local[rel])
        codec.require_answerable(question.record, question.text, local)
    except (MissingMedia, ImageError, VideoError, RecordError) as error:
        return str(error)
    return None


def require_few(rejected: Sequence[Rejected], n: int, most: float) -> None:
    """Raises UserError when more than the share `most` of n questions had to be rejected, or all of them."""
    if len(rejected) > most * n:
        raise UserError(
            f"{len(rejected)} of {n} held-out rows cannot be evaluated, more than evaluate.max_bad_fraction={most:g} allows: "
            f"{named(rejected)}"
        )
    if len(rejected) == n:
        raise UserError(f"none of the {n} held-out rows can be evaluated: {named(rejected)}")


def named(rejected: Sequence[Rejected]) -> str:
    """The first rows that were set aside with their reasons, in one line."""
    shown = "; ".join(
        f"{row.place or row.id}: {' '.join(row.reason.split())[:SHOWN_REASON]}" for row in rejected[:SHOWN]
    )
    return shown + (f"; and {len(rejected) - SHOWN} more" if len(rejected) > SHOWN else "")


def write_documents(questions: Sequence[Question], local: Mapping[str, Path], path: Path) -> None:
    """Write the questions as the JSON lines that the evaluation task reads, media as absolute local paths."""
    with open(path, "w", encoding="utf-8") as file:
        for question in questions:
            row = {
                "id": question.id,
                "images": [str(local[rel]) for rel in question.images],
                "video": clip_text(question.video, local),
                "question": question.text,
                "target": question.target,
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def clip_text(clip: VideoClip | None, local: Mapping[str, Path]) -> str:
    """A clip as JSON in a string, because its boxes have other keys in every row; empty without a clip."""
    return "" if clip is None else json.dumps(asdict(replace(clip, path=str(local[clip.path]))))
