"""Measure a model on the held-out rows with lmms-eval: one number, and the answer to every question."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from components.artifacts.artifact import Artifact, ArtifactWriter
from components.artifacts.context import StepContext
from components.errors import UserError
from components.evaluate.harness.launch import run_process
from components.evaluate.harness.process import Request
from components.evaluate.harness.results import flat_metrics
from components.evaluate.settings import EvaluateConfig
from components.evaluate.tasks.heldout import METRIC
from components.evaluate.tasks.questions import (
    SHOWN,
    HeldOut,
    Question,
    Rejected,
    answerable,
    named,
    read_questions,
    require_few,
    write_documents,
)
from components.media_files.root import MediaRoot
from components.model_files.settings import codec_of
from plm_model.family import Codec

HELD_OUT = "heldout"  # the task as lmms-eval knows it; people see `evaluate.task`


def run(settings: EvaluateConfig, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StepContext) -> None:
    """Inputs: model (a model directory), dataset. Writes results.json, samples.jsonl and rejected.jsonl."""
    started = time.monotonic()
    context.progress("fetching the held-out rows")
    held_out = read_questions(inputs["dataset"], settings.limit)
    media = MediaRoot.of(inputs["dataset"])
    asked = held_out.questions
    local = media.local((rel for question in asked for rel in question.media), context.cache_dir.absolute())
    codec = codec_of(inputs["model"])
    questions, unanswerable = answerable(asked, local, codec)
    rejected = [*held_out.rejected, *unanswerable]
    require_few(rejected, held_out.rows - held_out.beyond_limit, settings.max_bad_fraction)
    too_long = targets_too_long(questions, codec, settings.max_new_tokens)
    if too_long:
        context.progress(
            f"{len(too_long)} of {len(questions)} targets, {too_long[0].id} for one, have more tokens than "
            f"evaluate.max_new_tokens={settings.max_new_tokens}, so that no answer can match them; raise it"
        )
    result = measure(settings, inputs["model"], questions, local, context)
    answers = matched(questions, result["answers"])
    results = tidy(settings, result, held_out, rejected)
    write_lines(out, "samples.jsonl", [sample(q, answer) for q, answer in zip(questions, answers, strict=True)])
    write_lines(out, "rejected.jsonl", [asdict(row) for row in rejected])
    out.write_json("results.json", results)
    record(settings, results, rejected, context)
    out.counts |= {
        "rows": held_out.rows,
        "questions": len(questions),
        "rejected": len(rejected),
        "beyond_limit": held_out.beyond_limit,
        "not_asked": len(results["not_asked"]),
        "targets_too_long": len(too_long),
        "seconds": round(time.monotonic() - started, 1),
    }
    if settings.limit is not None:
        out.counts["limit"] = settings.limit


def targets_too_long(questions: Sequence[Question], codec: Codec, max_new_tokens: int) -> list[Question]:
    """Questions whose answer would be cut off before its end."""
    return [question for question in questions if codec.length(question.target) > max_new_tokens]


def measure(
    settings: EvaluateConfig,
    model: Artifact,
    questions: Sequence[Question],
    local: Mapping[str, Path],
    context: StepContext,
) -> dict[str, Any]:
    """Run lmms-eval in its own process, in a scratch folder that is gone afterwards; its log is kept."""
    cache = context.cache_dir.absolute()
    cache.mkdir(parents=True, exist_ok=True)
    log = cache / "logs" / f"evaluate-{settings.task}-{model.digest[:12]}.log"
    with tempfile.TemporaryDirectory(prefix="evaluate-", dir=cache) as scratch:
        documents = Path(scratch) / "documents.jsonl"
        write_documents(questions, local, documents)
        request = Request(
            model=str(model.local()),
            task=HELD_OUT,
            documents=str(documents),
            result=str(Path(scratch) / "result.json"),
            scratch=scratch,
            builtin_tasks=settings.builtin_tasks,
            limit=settings.limit,
            batch_size=settings.batch_size,
            max_new_tokens=settings.max_new_tokens,
            device=settings.device,
            parent=os.getpid(),
        )
        return run_process(request, cache, log, context.progress)


def write_lines(out: ArtifactWriter, rel: str, rows: Sequence[Mapping[str, Any]]) -> None:
    with out.open(rel, "w") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def matched(questions: Sequence[Question], answers: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The answers, checked to be one for each question and in the same order."""
    if [question.id for question in questions] != [answer["id"] for answer in answers]:
        raise UserError(
            f"lmms-eval answered {len(answers)} questions where {len(questions)} were asked; evaluate again"
        )
    return answers


def sample(question: Question, answer: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": question.id,
        "image": question.image,
        "video": None if question.video is None else asdict(question.video),
        "question": question.text,
        "target": question.target,
        "answer": answer["answer"],
        "correct": answer["correct"],
    }


def tidy(
    settings: EvaluateConfig, result: Mapping[str, Any], held_out: HeldOut, rejected: Sequence[Rejected]
) -> dict[str, Any]:
    """What `results.json` holds: the held-out task's metrics, those of built-in tasks, and how much was evaluated.

    rows = n + rejected + beyond_limit; `not_asked` are questions, of built-in tasks, that were counted as answered by nothing.
    """
    flat = {name: flat_metrics(values) for name, values in result["results"].items()}
    return {
        "metrics": flat.pop(HELD_OUT),
        "builtin": flat,
        "rows": held_out.rows,
        "n": held_out.rows - held_out.beyond_limit - len(rejected),
        "rejected": len(rejected),
        "rejected_first": [asdict(row) for row in rejected[:SHOWN]],
        "beyond_limit": held_out.beyond_limit,
        "not_asked": result["not_asked"],
        "limit": settings.limit,
        "lmms_eval_version": result["version"],
    }


def record(
    settings: EvaluateConfig, results: Mapping[str, Any], rejected: Sequence[Rejected], context: StepContext
) -> None:
    """Send the metrics to the tracker as eval/<task>/<metric>; what was not asked is said, and a limited run marked."""
    tasks = {settings.task: results["metrics"], **results["builtin"]}
    metrics = {f"eval/{task}/{name}": value for task, values in tasks.items() for name, value in values.items()}
    context.tracker.log_metrics(metrics)
    note = ""
    if settings.limit is not None:
        context.tracker.tag("eval.limit", str(settings.limit))
        note = f" (limited to the first {settings.limit})"
    if rejected:
        note += f", {len(rejected)} not asked: {named(rejected)}"
    for lost in results["not_asked"][:1]:
        note += (
            f"; {len(results['not_asked'])} questions of {', '.join(sorted({each['task'] for each in results['not_asked']}))} "
            f"counted as wrong because they cannot be asked, such as document {lost['document']}: {lost['reason']}"
        )
    context.progress(f"{METRIC} {results['metrics'][METRIC]:.3f} on {results['n']} held-out rows{note}")
