"""Preprocess: conversations and their media become shards of encoded examples, with an index and statistics.

The artifact holds, for `train` and for `test` where there are test rows, `<split>/shard-00000.parquet`... and
`<split>/index.parquet`; and `quarantine.jsonl`, `statistics.json` and `audit.html`. The same input and config give the same
bytes, however many workers there were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from components.artifacts import Artifact, ArtifactWriter
from components.config import PipelineConfig
from components.context import StepContext, keep
from components.errors import UserError
from components.media import MediaRoot
from components.model_config import model_config
from components.preprocess import audit
from components.preprocess.encode import Encoder
from components.preprocess.graph import ChunkWorker, Report, run_graph
from components.preprocess.quarantine import FILE, require_within_budget, write_quarantine
from components.preprocess.scan import Chunk, Scan
from components.preprocess.shards import index_bytes
from components.preprocess.statistics import statistics
from plm_model.codec import Codec
from plm_model.tokenizer import Tokenizer

SPLITS = ("train", "test")


def run(config: PipelineConfig, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StepContext) -> None:
    """Encode the rows of `inputs["dataset"]` for the checkpoint `inputs["model"]` on the initialised Ray.

    UserError when there are no rows, when more are bad than `preprocess.max_bad_fraction` allows, or when a path leads
    out of the data root.
    """
    dataset = inputs["dataset"]
    encoder = Encoder(
        codec=make_codec(config, inputs["model"]),
        media=MediaRoot.of(dataset),
        accept_gpt_role=config.convert.accept_gpt_role,
        frame_jpeg_quality=config.preprocess.frame_jpeg_quality,
    )
    chunks = scan(config, dataset)
    reports = work(config, ChunkWorker(encoder, chunks, out.uri), dataset, context)
    bad = [report for report in reports if report.reason is not None]
    good = [report for report in reports if report.reason is None]
    require_within_budget(bad, len(reports), config.preprocess.max_bad_fraction, context.resume_uri)
    if not any(report.split == "train" for report in good):
        raise UserError(f"none of the rows of {dataset.uri}/train.jsonl can be used: {bad[0].reason}")
    write_results(out, good, bad)
    keep(out, context, {audit.FILE: audit.audit_page(out.uri, good, bad, encoder.codec, config.name).encode()})
    context.progress(f"{len(good)} examples, {len(bad)} rows in quarantine")


def make_codec(config: PipelineConfig, model: Artifact) -> Codec:
    """The codec of a checkpoint's tokenizer and processor."""
    tokenizer = Tokenizer.from_file(model.local("tokenizer.json"))
    return Codec(tokenizer, model_config(model), config.preprocess.max_tokens)


def scan(config: PipelineConfig, dataset: Artifact) -> list[Chunk]:
    """The chunks of all splits; UserError when there is nothing to train on."""
    looking = Scan(config.preprocess.rows_per_shard, config.convert.accept_gpt_role)
    chunks = []
    for split in SPLITS:
        if f"{split}.jsonl" in dataset.files:
            chunks += looking.chunks(dataset.local(f"{split}.jsonl"), split)
    if not any(chunk.split == "train" for chunk in chunks):
        raise UserError(f"{dataset.uri}/train.jsonl has no rows")
    return chunks


def work(config: PipelineConfig, worker: ChunkWorker, dataset: Artifact, context: StepContext) -> list[Report]:
    """Run all chunks; the reports in the order of the lines. Refuses to go on when a line got lost or was done twice."""
    total = sum(chunk.rows for chunk in worker.chunks)
    reports: list[Report] = []
    for finished in run_graph(worker, dataset.uri, config.preprocess.parallelism):
        reports += finished
        context.progress(f"{len(reports)} of {total} rows encoded")
    reports.sort(key=lambda report: (SPLITS.index(report.split), report.line))
    if len({(report.split, report.line) for report in reports}) != total or len(reports) != total:
        raise RuntimeError(f"{len(reports)} reports came back for {total} rows")
    return reports


def write_results(out: ArtifactWriter, good: Sequence[Report], bad: Sequence[Report]) -> None:
    """The index of each split, the quarantine and the statistics."""
    for split in SPLITS:
        entries = [asdict(report) for report in good if report.split == split]
        if entries:
            with out.open(f"{split}/index.parquet") as file:
                file.write(index_bytes(entries))
    with out.open(FILE, "w") as file:
        write_quarantine(file, bad)
    figures = statistics(good, bad, SPLITS)
    out.write_json("statistics.json", figures)
    out.counts.update(
        {f"{split}_{name}": figures[split][name] for split in SPLITS for name in ("examples", "rejected")}
    )
    out.counts.update(tokens=figures["train"]["tokens"], supervised=figures["train"]["supervised"])
