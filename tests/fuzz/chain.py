"""Ingest, convert and preprocess in this process, without Ray: the steps' own code, and what it made of every row."""

from __future__ import annotations

import hashlib
import itertools
import json
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.artifacts.artifact import Artifact, StepKey
from components.artifacts.context import StepContext
from components.artifacts.store import ArtifactStore
from components.convert.step import run as convert
from components.errors import UserError
from components.ingest.step import run as ingest
from components.media_files.root import MediaRoot
from components.model_files.settings import codec_of
from components.pipeline.config import PipelineConfig
from components.pipeline.steps import STEPS
from components.preprocess.encode import Encoder
from components.preprocess.graph import ChunkWorker, raise_stop, read_lines
from components.preprocess.outcome import SPLITS, collect
from components.preprocess.settings import PreprocessConfig
from components.preprocess.step import last_line, scan, write_results
from components.tracking.runs import SilentTracker
from plm_model.families.plm.settings import PLMConfig
from plm_model.families.plm.tokenizer import Tokenizer
from plm_model.families.plm.weights import save_companions

TOKENIZER = Path(__file__).parents[2] / "configs" / "tokenizers" / "plm_tiny" / "tokenizer.json"
ARCHITECTURE = {
    "vision": {"image_size": 28, "width": 32, "layers": 1, "heads": 2},
    "decoder": {"vocab_size": 1010, "dim": 32, "layers": 1, "heads": 2, "kv_heads": 1, "hidden_dim": 64},
    "image_token_id": 1002,
    "processor": {"vision_input_type": "thumb+tile", "max_num_tiles": 4, "max_video_frames": 4},
}
ROW_SECONDS = 20.0
GOOD = "good-"  # how the ids of good rows begin
LONGEST_REASON = 1000  # characters


@dataclass
class Result:
    """What a chain made: findings as (kind, text), a digest of each good row's example, and how many rows were used and not."""

    findings: list[tuple[str, str]] = field(default_factory=list)
    good: dict[str, str] = field(default_factory=dict)
    rows: int = 0
    rejected: int = 0
    slowest: float = 0.0

    def find(self, kind: str, text: str) -> None:
        self.findings.append((kind, " ".join(text.split())[:500]))


class Chain:
    """Runs the three steps below one folder, again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.numbers = folder, itertools.count()
        self.store = ArtifactStore(str(folder / "storage"), folder / "cache")

    def run(self, source: Mapping[str, Any], lines: int | None, **settings: Any) -> Result:
        """Bring a source in, convert it and encode it; `lines` is the number of its rows, where that is known by itself."""
        result = Result()
        lenient = {"test_fraction": 0, "max_bad_fraction": 1, "accept_gpt_role": True}
        config = PipelineConfig.model_validate(
            {
                "ingest": {"source": source},
                "convert": lenient | settings,
                "preprocess": {
                    "max_tokens": 512,
                    "rows_per_shard": 64,
                    "max_bad_fraction": 1,
                    "row_seconds": ROW_SECONDS,
                },
                "model": {"tokenizer": str(TOKENIZER), "architecture": ARCHITECTURE},
            }
        )
        try:
            raw = self._made("ingest", config, {}, ingest)
            dataset = self._made("convert", config, {"raw": raw}, convert)
            inputs = {"dataset": dataset, "model": self._model(config)}
            shards = self._made("preprocess", config, inputs, encode)
        except UserError as error:
            result.find("stopped", str(error))
            return result
        except Exception as error:
            where = " < ".join(
                f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)[-3:]
            )
            result.find("traceback", f"{type(error).__name__}: {error} at {where}")
            return result
        judge(result, raw, dataset, shards, lines)
        return result

    def _made(self, step: str, config: PipelineConfig, inputs: Mapping[str, Artifact], run: Any) -> Artifact:
        key = StepKey(step, config={"call": next(self.numbers)})
        context = StepContext(SilentTracker(), lambda text: None, self.folder / "cache", str(self.folder / "resume"))
        with self.store.create(key) as out:
            run(STEPS[step].settings(config), inputs, out, context)
        found = self.store.find(key)
        assert found is not None
        return found

    def _model(self, config: PipelineConfig) -> Artifact:
        """What there is of a base model beside its weights."""
        key = StepKey("base")
        if (found := self.store.find(key)) is None:
            with self.store.create(key) as out, tempfile.TemporaryDirectory() as folder:
                save_companions(PLMConfig.from_dict(ARCHITECTURE), Tokenizer.from_file(TOKENIZER), folder)
                out.add_tree(folder)
        return found or self._model(config)


def encode(settings: PreprocessConfig, inputs: Mapping[str, Artifact], out: Any, context: StepContext) -> None:
    """Preprocess as its step does, chunk by chunk in this process, where the step lets Ray call the worker."""
    dataset = inputs["dataset"]
    encoder = Encoder(codec_of(inputs["model"], settings.max_tokens), MediaRoot.of(dataset))
    chunks = scan(settings, dataset)
    worker = ChunkWorker(encoder, chunks, out.uri, settings.row_seconds)

    def reports() -> Iterator[Any]:
        for number, chunk in enumerate(chunks):
            table = worker(read_lines(chunk, number, dataset.uri))
            raise_stop(table)
            yield table

    outcome = collect(reports(), chunks, lambda rows: None)
    context.progress(last_line(write_results(out, outcome), outcome))


def judge(result: Result, raw: Artifact, dataset: Artifact, shards: Artifact, lines: int | None) -> None:
    """Whether the counts of the steps close, each reason is one line, and none tells of a fault of ours."""
    first, second, third = raw.counts, dataset.counts, shards.counts
    examples, bad = (sum(third.get(f"{split}_{name}", 0) for split in SPLITS) for name in ("examples", "rejected"))
    kept = second["train"] + second["test"]
    closed = {
        "ingest's rows": (first["rows"], first["used"] + first["repaired"] + first["rejected"]),
        "convert's rows": (second["rows"], kept + second["rejected"]),
        "ingest's and convert's": (first["rows"], second["rows"]),
        "preprocess's rows": (kept, examples + bad),
        "convert's rejects": (second["rejected"], len(listed(dataset, "rejected.jsonl"))),
        "preprocess's rejects": (bad, len(listed(shards, "rejected.jsonl"))),
    }
    if lines is not None:
        closed["the file's rows"] = (lines, first["rows"])
    for name, (left, right) in closed.items():
        if left != right:
            result.find("counts", f"{name}: {left} and {right}")
    for row in (*listed(dataset, "rejected.jsonl"), *listed(shards, "rejected.jsonl")):
        judge_reason(result, row)
    result.rows, result.rejected = first["rows"], second["rejected"] + bad
    result.good = dict(examples_of(shards))


def judge_reason(result: Result, row: Mapping[str, Any]) -> None:
    reason = row["reason"]
    where = f"{row.get('place') or row['file'] + ':' + str(row['line'])}: {reason}"
    if "a fault of ours" in reason:
        result.find("traceback", where)
    if "takes more than" in reason or "no answer within" in reason:
        result.find("slow", where)
    if "ended the process" in reason:
        result.find("death", where)
    if not reason or len(reason) > LONGEST_REASON or "\n" in reason:
        result.find("message", where)


def listed(artifact: Artifact, name: str) -> list[dict[str, Any]]:
    with artifact.open(name) as lines:
        return [json.loads(line) for line in lines]


def examples_of(shards: Artifact) -> Iterator[tuple[str, str]]:
    """(id, digest of all columns) of the example of each good row."""
    import pyarrow.parquet as pq

    for name in shards.files:
        if name.startswith("train/shard-"):
            for row in pq.read_table(shards.local(name)).to_pylist():
                if row["id"].startswith(GOOD):
                    yield row["id"], hashlib.sha256(repr(sorted(row.items())).encode()).hexdigest()
