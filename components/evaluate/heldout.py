"""The held-out rows as questions: what is asked, what the answer should be, and where the media lie on this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from components.artifacts import Artifact
from components.errors import UserError
from components.media import MissingMedia, require_file
from plm_model.config import ProcessorConfig
from plm_model.images import ImageError, verified_size
from plm_model.record import RecordError, VideoClip, parse_record
from plm_model.video import VideoError, read_clip


@dataclass(frozen=True)
class Skipped:
    """A held-out row that cannot be evaluated, and why."""

    id: str
    reason: str


@dataclass(frozen=True)
class Question:
    """One held-out row. `image` is the record's own value (a path below the media root, a list of them, or None)."""

    id: str
    image: Any
    images: tuple[str, ...]
    text: str
    target: str
    video: VideoClip | None = None

    @property
    def media(self) -> tuple[str, ...]:
        """The files that are shown, below the media root."""
        return self.images if self.video is None else (self.video.path,)


def read_questions(dataset: Artifact, limit: int | None) -> list[Question]:
    """The first `limit` rows of `test.jsonl` (all of them when None). Raises UserError when there is none."""
    questions = []
    with dataset.open("test.jsonl", "r") as file:
        for number, line in enumerate(file, start=1):
            if limit is not None and len(questions) == limit:
                break
            questions.append(question_of(line, f"{dataset.uri}/test.jsonl line {number}"))
    if not questions:
        raise UserError("there are no held-out rows to evaluate on; raise convert.test_fraction or add data")
    return questions


def question_of(line: str, where: str) -> Question:
    """First human turn and the answer to it; of a longer conversation the rest is not asked."""
    try:
        record = parse_record(json.loads(line), accept_gpt_role=True)
        text = next(turn.text for turn in record.turns if turn.role == "human")
        target = next(turn.text for turn in record.turns if turn.role == "assistant")
    except StopIteration:
        raise UserError(f"{where}: needs a question and an answer") from None
    except (json.JSONDecodeError, RecordError) as error:
        raise UserError(f"{where}: {error}") from None
    return Question(record.id, record.row.get("image"), record.images, text, target, record.video)


def answerable(
    questions: Sequence[Question], local: Mapping[str, Path], processor: ProcessorConfig
) -> tuple[list[Question], list[Skipped]]:
    """Part the questions whose media can all be decoded from those that no model could answer. `local` maps paths to files."""
    with ThreadPoolExecutor() as pool:
        reasons = list(pool.map(lambda question: damage(question, local, processor), questions))
    kept = [question for question, reason in zip(questions, reasons, strict=True) if reason is None]
    skipped = [Skipped(q.id, reason) for q, reason in zip(questions, reasons, strict=True) if reason is not None]
    return kept, skipped


def damage(question: Question, local: Mapping[str, Path], processor: ProcessorConfig) -> str | None:
    """Why a question's media cannot be shown to a model, or None."""
    try:
        for rel in question.media:
            require_file(rel, local[rel])
    except MissingMedia as error:
        return str(error)
    for rel in question.images:
        try:
            verified_size(local[rel].read_bytes())
        except ImageError as error:
            return f"{rel}: {error}"
    clip = question.video
    if clip is not None:
        try:
            show = (clip.start, clip.end, clip.boxes, clip.path)
            read_clip(local[clip.path], processor.max_video_frames, lambda frame: None, *show)
        except VideoError as error:
            return str(error)
    return None


def require_few(skipped: Sequence[Skipped], n: int, most: float) -> None:
    """Raises UserError when more than the share `most` of n questions had to be skipped."""
    if len(skipped) > most * n:
        first = skipped[0]
        raise UserError(
            f"{len(skipped)} of {n} held-out rows cannot be evaluated, more than preprocess.max_bad_fraction {most:g} allows; "
            f"the first is {first.id!r}: {first.reason}"
        )


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
