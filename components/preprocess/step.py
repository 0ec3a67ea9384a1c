"""Preprocess: conversations and their media become shards of encoded examples, with an index and statistics.

What `convert` promises of its records (`plm_model.records.record.SCHEMA`) is not looked at again. The artifact holds, for
`train` and for `test` where there are test rows, `<split>/shard-00000.parquet`... and `<split>/index.parquet`; and
`rejected.jsonl`, `statistics.json` and `audit.html`. The same input and config give the same bytes, however many workers
there were.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any

from components.artifacts.artifact import Artifact, ArtifactWriter
from components.artifacts.context import StepContext, keep_files
from components.errors import UserError
from components.media_files.root import MediaRoot
from components.model_files.settings import codec_of
from components.preprocess import audit
from components.preprocess.encode import Encoder
from components.preprocess.figures import statistics
from components.preprocess.graph import ChunkWorker, run_graph
from components.preprocess.outcome import SPLITS, Outcome, collect
from components.preprocess.rejected import FILE, require_within_budget, write_rejected
from components.preprocess.scan import Chunk, chunks_of
from components.preprocess.settings import PreprocessConfig
from components.shards.writer import write_index
from plm_model.packs.stored import StoreOptions
from plm_model.records.record import SCHEMA

COUNTED = ("rows", "examples", "used", "repaired", "rejected")


def run(settings: PreprocessConfig, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StepContext) -> None:
    """Encode the rows of `inputs["dataset"]` for the model `inputs["model"]` on the initialised Ray.

    UserError when there are no rows, when more are bad than `preprocess.max_bad_fraction` allows, or when a path leads
    out of the data root.
    """
    dataset = inputs["dataset"]
    dataset.require_schema(SCHEMA)
    encoder = Encoder(
        codec=codec_of(inputs["model"], settings.max_tokens),
        media=MediaRoot.of(dataset),
        options=StoreOptions(settings.frame_jpeg_quality, reject_damaged=settings.damaged == "reject"),
    )
    chunks = scan(settings, dataset)
    outcome = work(settings, ChunkWorker(encoder, chunks, out.uri, settings.row_seconds), dataset, context)
    require_within_budget(outcome, settings.max_bad_fraction, context.resume_uri)
    if not outcome.good["train"].num_rows:
        first = next(outcome.bad_rows())["reason"]
        raise UserError(f"none of the rows of {dataset.uri}/train.jsonl can be used: {first}")
    figures = write_results(out, outcome)
    read = dataset.read_json("noted.json") if "noted.json" in dataset.files else None
    keep_files(out, context, {audit.FILE: audit.audit_page(out.uri, outcome, encoder.codec, read).encode()})
    context.progress(last_line(figures, outcome))


def last_line(figures: Mapping[str, Mapping[str, Any]], outcome: Outcome) -> str:
    """What became of all rows: `90 examples, 2 of them repaired, 10 rows rejected; 2 boxes clamped, such as a.csv:4`."""
    examples, repaired, rejected = (
        sum(figures[split][name] for split in SPLITS) for name in ("examples", "repaired", "rejected")
    )
    mended = f", {repaired} of them repaired" if repaired else ""
    noticed = outcome.all_noted().line()
    return f"{examples} examples{mended}, {rejected} rows rejected" + (f"; {noticed}" if noticed else "")


def scan(settings: PreprocessConfig, dataset: Artifact) -> list[Chunk]:
    """The chunks of all splits; UserError when there is nothing to train on."""
    chunks = []
    for split in SPLITS:
        if f"{split}.jsonl" in dataset.files:
            chunks += chunks_of(dataset.local(f"{split}.jsonl"), split, settings.rows_per_shard)
    if not any(chunk.split == "train" for chunk in chunks):
        raise UserError(f"{dataset.uri}/train.jsonl has no rows")
    return chunks


def work(settings: PreprocessConfig, worker: ChunkWorker, dataset: Artifact, context: StepContext) -> Outcome:
    """Run all chunks. Refuses to go on when a line got lost or was done twice."""
    total = sum(chunk.rows for chunk in worker.chunks)
    reports = run_graph(worker, dataset.uri, settings.parallelism)
    return collect(reports, worker.chunks, lambda rows: context.progress(f"{rows} of {total} rows encoded"))


def write_results(out: ArtifactWriter, outcome: Outcome) -> dict[str, dict[str, Any]]:
    """The index of each split, the rejected rows and the statistics, which are also returned."""
    with tempfile.TemporaryDirectory() as folder:
        for split in SPLITS:
            if outcome.good[split].num_rows:
                write_index(f"{folder}/{split}", outcome.good[split])
                out.add_file(f"{folder}/{split}", f"{split}/index.parquet")
    with out.open(FILE, "w") as file:
        write_rejected(file, outcome)
    figures = statistics(outcome)
    out.write_json("statistics.json", figures)
    out.counts.update(
        {f"{split}_{name}": figures[split][name] for split in SPLITS for name in COUNTED}
        | {f"noted_{kind}": count for kind, count in sorted(outcome.all_noted().counts.items())}
    )
    out.counts.update(tokens=figures["train"]["tokens"], supervised=figures["train"]["supervised"])
    return figures
