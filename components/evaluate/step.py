"""Ask a model with lmms-eval: the held-out rows, and the benchmarks that the config names; every answer is kept."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from components.artifacts.artifact import Artifact, ArtifactWriter
from components.artifacts.context import StepContext
from components.errors import UserError
from components.evaluate.asked import AskedModel, asked_model
from components.evaluate.measuring import ModelPlace, Places, measure
from components.evaluate.results import (
    HELD_OUT,
    benchmark_results,
    held_out_result,
    record,
    sample,
    samples_file,
    score,
    write_lines,
)
from components.evaluate.settings import EvaluateConfig
from components.evaluate.tasks.questions import (
    SHOWN,
    HeldOut,
    Question,
    Rejected,
    answerable,
    read_questions,
    require_few,
    write_documents,
)
from components.media_files.root import MediaRoot
from components.model_files.settings import codec_of
from plm_model.family import Codec


def run(settings: EvaluateConfig, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StepContext) -> None:
    """Inputs: model (a model directory, or the champion), dataset. Writes results.json, samples/ and rejected.jsonl."""
    started = time.monotonic()
    asked = asked_model(inputs["model"], context.cache_dir)
    if asked.model is None:
        out.write_json("results.json", {"model": asked.described(), "tasks": {}})
        context.progress(f"nothing to ask: {asked.problem or 'there is no other champion'}")
        return
    evaluate(settings, asked, inputs["dataset"], out, context)
    out.counts["seconds"] = round(time.monotonic() - started, 1)


def evaluate(
    settings: EvaluateConfig, asked: AskedModel, dataset: Artifact, out: ArtifactWriter, context: StepContext
) -> None:
    """Ask a model that is there."""
    model = asked.model
    assert model is not None
    context.progress("fetching the held-out rows")
    held_out = read_questions(dataset, settings.limit)
    media = MediaRoot.of(dataset)
    wanted = (rel for question in held_out.questions for rel in question.media)
    local = media.local(wanted, context.cache_dir.absolute())
    codec = codec_of(model)
    questions, unanswerable = answerable(held_out.questions, local, codec)
    rejected = [*held_out.rejected, *unanswerable]
    require_few(rejected, held_out.rows - held_out.beyond_limit, settings.max_bad_fraction)
    too_long = targets_too_long(questions, codec, settings.max_new_tokens)
    if too_long:
        context.progress(
            f"{len(too_long)} of {len(questions)} targets, {too_long[0].id} for one, have more tokens than "
            f"evaluate.max_new_tokens={settings.max_new_tokens}, so that no answer can match them; raise it"
        )
    result = ask(settings, model, questions, local, context)
    answers = [answer["answer"] for answer in matched(questions, result["answers"])]
    scored = score(settings.metric, settings.also, questions, answers)
    rows = zip(questions, answers, scored.scores, strict=True)
    write_lines(out, samples_file(HELD_OUT), [sample(*row) for row in rows])
    write_lines(out, "rejected.jsonl", [asdict(row) for row in rejected])
    results = {
        "model": asked.described(),
        "tasks": {HELD_OUT: held_out_result(scored), **benchmark_results(result["benchmarks"], out)},
        **extent(settings, held_out, rejected),
        "not_asked": result["not_asked"],
        "lmms_eval_version": result["version"],
    }
    out.write_json("results.json", results)
    record(settings, results, rejected, context)
    count(out, settings, held_out, questions, rejected, too_long, result)


def extent(settings: EvaluateConfig, held_out: HeldOut, rejected: Sequence[Rejected]) -> dict[str, Any]:
    """How much of the held-out rows was asked: rows = n + rejected + beyond_limit."""
    return {
        "rows": held_out.rows,
        "n": held_out.rows - held_out.beyond_limit - len(rejected),
        "rejected": len(rejected),
        "rejected_first": [asdict(row) for row in rejected[:SHOWN]],
        "beyond_limit": held_out.beyond_limit,
        "limit": settings.limit,
    }


def count(
    out: ArtifactWriter,
    settings: EvaluateConfig,
    held_out: HeldOut,
    questions: Sequence[Question],
    rejected: Sequence[Rejected],
    too_long: Sequence[Question],
    result: Mapping[str, Any],
) -> None:
    """The counts of the artifact."""
    asked = result["counts"]
    out.counts |= {
        "rows": held_out.rows,
        "questions": len(questions),
        "rejected": len(rejected),
        "beyond_limit": held_out.beyond_limit,
        "not_asked": len(result["not_asked"]),
        "targets_too_long": len(too_long),
        "answers_kept": asked["kept"],
        "answers_computed": asked["answered"],
    }
    out.counts["seconds_per_answer"] = round(asked["seconds"] / max(1, asked["asked"]), 5)
    if settings.limit is not None:
        out.counts["limit"] = settings.limit


def targets_too_long(questions: Sequence[Question], codec: Codec, max_new_tokens: int) -> list[Question]:
    """Questions whose answer would be cut off before its end."""
    return [question for question in questions if codec.length(question.target) > max_new_tokens]


def ask(
    settings: EvaluateConfig,
    model: Artifact,
    questions: Sequence[Question],
    local: Mapping[str, Path],
    context: StepContext,
) -> dict[str, Any]:
    """What the evaluation's process says of the held-out questions and of the benchmarks."""
    cache = context.cache_dir.absolute()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="evaluate-", dir=cache) as scratch:
        documents = Path(scratch) / "documents.jsonl"
        write_documents(questions, local, documents)
        asked = ModelPlace(model.local(), model.digest)
        return measure(settings, asked, documents, Places(cache, Path(scratch), context.kept_uri), context.progress)


def matched(questions: Sequence[Question], answers: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The answers, checked to be one for each question and in the same order."""
    if [question.id for question in questions] != [answer["id"] for answer in answers]:
        raise UserError(
            f"lmms-eval answered {len(answers)} questions where {len(questions)} were asked; evaluate again"
        )
    return answers
