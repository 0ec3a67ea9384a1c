"""Ask a model directory: what the evaluation's process is told, and where its answers are kept."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.artifacts.artifact import digest_of
from components.artifacts.code_digest import code_of
from components.evaluate.harness.launch import run_process
from components.evaluate.harness.request import Request
from components.evaluate.judge.beside import judge_beside, without_failed
from components.evaluate.results import HELD_OUT
from components.evaluate.settings import EvaluateConfig
from components.evaluate.suites.chosen import columns_of
from plm_model.family import modules
from plm_model.model_directory.description import family_at


@dataclass(frozen=True)
class ModelPlace:
    """A model directory on this machine, and what its weights are known by."""

    directory: Path
    digest: str


@dataclass(frozen=True)
class Places:
    """Where an evaluation may write: caches and logs, a scratch folder of its own, and the URI of answers that are kept."""

    cache: Path
    scratch: Path
    kept_uri: str


def measure(
    settings: EvaluateConfig,
    model: ModelPlace,
    documents: Path | None,
    places: Places,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """Run lmms-eval in its own process on the held-out `documents`, if any, and on the benchmarks; its log is kept."""
    columns = columns_of(settings)
    request = Request(
        model=str(model.directory.absolute()),
        digest=model.digest,
        task=HELD_OUT,
        documents=None if documents is None else str(documents),
        columns={title: column.model_dump(mode="json") for title, column in columns.items()},
        include=() if settings.include_path is None else (str(Path(settings.include_path).absolute()),),
        data=None if settings.data is None else str(Path(settings.data).absolute()),
        offline=settings.offline,
        kept=kept_answers(model, places),
        result=str(places.scratch / "result.json"),
        scratch=str(places.scratch),
        limit=settings.limit,
        batch_size=settings.batch_size,
        max_new_tokens=settings.max_new_tokens,
        device=settings.device,
        workers=settings.workers,
        ray_address="auto" if "RAY_ADDRESS" in os.environ else None,  # as Ray tells its jobs
        parent=os.getpid(),
    )
    log = places.cache / "logs" / f"evaluate-{settings.task}-{model.digest[:12]}.log"
    with judge_beside(settings.judge, places.cache) as judge:
        result = run_process(request, places.cache, log, progress, judge)
    return {**result, "benchmarks": without_failed(result["benchmarks"], judge.failure)}


def kept_answers(model: ModelPlace, places: Places) -> str:
    """Where answers of these weights lie that the same code gave; the process adds the kind of its device."""
    family = family_at(model.directory)
    code = code_of("components.evaluate.answering.model", *modules(family, ("settings", "codec", "answer")))
    folder = digest_of({"weights": model.digest, "code": code})[:20]
    return f"{places.kept_uri or places.cache / 'kept'}/answers/{folder}"
