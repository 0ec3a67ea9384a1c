"""Benchmarks of any model directory, without a pipeline: the figures, the samples, and where they were written."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.artifacts.files import write_bytes, write_json
from components.artifacts.manifest import MANIFEST, BrokenManifest, read_manifest
from components.errors import UserError
from components.evaluate.measuring import ModelPlace, Places, measure
from components.evaluate.results import benchmark_result, scaled
from components.evaluate.settings import EvaluateConfig
from components.evaluate.suites.suite import Column

READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Benchmarked:
    """A model's benchmarks: `tasks` as an evaluation's results.json holds them, samples by task, counts of answers."""

    name: str
    digest: str
    tasks: Mapping[str, Mapping[str, Any]]
    samples: Mapping[str, Sequence[Mapping[str, Any]]]
    counts: Mapping[str, int]


def benchmark(
    name: str, directory: Path, settings: EvaluateConfig, root: Path, progress: Callable[[str], None]
) -> Benchmarked:
    """Measure a model directory on the suites and tasks of `settings`; answers are kept below `root`."""
    if not (settings.suites or settings.tasks):
        raise UserError("name what to measure: --suite plm_image, or --task mme")
    cache = root / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    model = ModelPlace(directory, weights_digest(directory))
    with tempfile.TemporaryDirectory(prefix="evaluate-", dir=cache) as scratch:
        places = Places(cache.absolute(), Path(scratch).absolute(), str((root / "kept").absolute()))
        result = measure(settings, model, None, places, progress)
    tasks: dict[str, Mapping[str, Any]] = {}
    samples: dict[str, Sequence[Mapping[str, Any]]] = {}
    for title, outcome in result["benchmarks"].items():
        column = Column.model_validate(outcome["column"])
        samples[title] = scaled(outcome["samples"], column)
        tasks[title] = benchmark_result(outcome, column, samples[title])
    return Benchmarked(name, model.digest, tasks, samples, result["counts"])


def weights_digest(directory: Path) -> str:
    """What a model directory's contents are known by: an artifact's own digest, else 32 digits over all of its files."""
    try:
        manifest = read_manifest((directory.parent / MANIFEST).read_bytes())
        if manifest["attempt"] == directory.name:
            digest: str = manifest["digest"]
            return digest
    except (OSError, BrokenManifest):
        pass
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    with ThreadPoolExecutor(4) as pool:
        sums = list(pool.map(_sha256, files))
    named = [[path.relative_to(directory).as_posix(), digest] for path, digest in zip(files, sums, strict=True)]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:32]


def _sha256(path: Path) -> str:
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(READ_BYTES):
            sha.update(block)
    return sha.hexdigest()


def write(found: Benchmarked, folder: Path) -> None:
    """Leave results.json and samples/TASK.jsonl in a folder, each whole or not at all."""
    for task, rows in found.samples.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_bytes(str(folder / "samples" / f"{task}.jsonl"), lines.encode())
    results = {"model": found.name, "weights": found.digest, "tasks": dict(found.tasks)}
    write_json(str(folder / "results.json"), results, indent=1)
