"""The Ray Data graph: read a chunk of lines, encode them, write their shard, and report a small row for each line.

One task does all three for a chunk, row group by row group, so that neither a worker nor the driver ever holds a shard. What
a task finds out about its lines comes back as values; only a fault of the program is an exception.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import pickle
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from components.artifacts.files import filesystem
from components.artifacts.sums import OTHER_CONTENTS, DamagedFile, cure
from components.errors import Unusable, UserError
from components.preprocess.encode import Encoder
from components.preprocess.row_process import SECONDS, row_process
from components.preprocess.scan import Chunk
from components.shards.writer import write_shard

TASK_RETRIES = 3  # after a worker died: of the machine, or of its memory; Ray by itself never stops trying
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass
class Report:
    """What became of one line: `reason` is None for an example, which then has a place in a shard and costs.

    `notes` are the kinds of what was noticed about an example; `place` is the line of the user's own file, where known.
    """

    split: str
    line: int
    id: str | None
    reason: str | None = None
    source: str | None = None
    shard: str | None = None
    row: int = -1
    tokens: int = 0
    supervised: int = 0
    media: int = 0
    frames: int = 0
    media_bytes: int = 0
    notes: Sequence[str] = ()
    place: str | None = None

    @property
    def file(self) -> str:
        return f"{self.split}.jsonl"


@dataclass
class Stop:
    """Why a task ended the whole step: a UserError's message, or a full disk's error number and file."""

    stop: str
    number: int = 0
    file: str = ""


@dataclass(frozen=True)
class ChunkWorker:
    """Writes the shards of chunks; called by Ray Data with a table of lines. A row may compute for `row_seconds`."""

    encoder: Encoder
    chunks: Sequence[Chunk]
    out_uri: str
    row_seconds: float = SECONDS

    def __call__(self, lines: Any) -> Any:
        """Table of `chunk`, `line`, `text` to a table of `chunk` and the fields of Report, or of one Stop."""
        import pyarrow as pa

        number = lines["chunk"][0].as_py()
        chunk = self.chunks[number]
        reports: list[Report] = []
        try:
            require_same(chunk, lines)
            fs, out = filesystem(self.out_uri)
            write_shard(fs, f"{out}/{chunk.split}/{chunk.shard}", self.rows(chunk, lines, reports))
        except UserError as error:
            return pa.Table.from_pylist([asdict(Stop(str(error)))], table_schema())
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            stop = Stop(error.strerror or "disk full", error.errno, str(error.filename or out))
            return pa.Table.from_pylist([asdict(stop)], table_schema())
        return pa.Table.from_pylist([{**asdict(report), "chunk": number} for report in reports], table_schema())

    def rows(self, chunk: Chunk, lines: Any, reports: list[Report]) -> Iterator[dict[str, Any]]:
        """The rows of the shard; a report for every line, good or bad, goes to `reports` on the way."""
        written = 0
        process = row_process()
        process.use(pickle.dumps(self.encoder), self.row_seconds)
        for line, text in zip(lines["line"].to_pylist(), lines["text"], strict=True):
            try:
                row = process.encode(text.as_py(), chunk.file)
            except Unusable as error:
                reports.append(Report(chunk.split, line, error.id, error.reason, place=error.place))
                continue
            except UserError as error:
                raise UserError(f"{chunk.file}:{line}: {error}") from error
            told = {name: row[name] for name in ("id", "source", "supervised", "frames", "notes", "place")}
            size = sum(len(item["data"]) for item in row["media"])
            report = Report(
                chunk.split, line, shard=chunk.shard, row=written, tokens=row["tokens_n"], media=row["media_n"], **told
            )
            report.media_bytes = size
            reports.append(report)
            written += 1
            yield row


def require_same(chunk: Chunk, lines: Any) -> None:
    """DamagedFile unless the lines are those that were looked at before, in a file that was verified then."""
    sha = hashlib.sha256()
    for text in lines["text"]:
        sha.update(text.as_py() + b"\n")
    if chunk.sha256 and sha.hexdigest() != chunk.sha256:
        where = f"{chunk.file} of the data set, from line {chunk.first_line}"
        raise DamagedFile(f"{where}: {OTHER_CONTENTS}; {cure('convert')}")


def table_schema() -> Any:
    """Arrow schema that holds a Report or a Stop."""
    import pyarrow as pa

    text = ("split", "id", "reason", "source", "shard", "place", "stop", "file")
    numbers = ("chunk", "line", "row", "tokens", "supervised", "media", "frames", "media_bytes", "number")
    notes = ("notes", pa.list_(pa.string()))
    return pa.schema([*((name, pa.string()) for name in text), *((name, pa.int64()) for name in numbers), notes])


def run_graph(worker: ChunkWorker, dataset_uri: str, parallelism: int | None) -> Iterator[Any]:
    """Run all chunks on the initialised Ray, at most `parallelism` at a time; the table of a chunk's reports as it ends.

    Chunks end in any order. UserError or OSError (disk full) when a worker found a reason to stop.
    """
    import ray.data
    from ray.util.annotations import RayDeprecationWarning

    keep_quiet()
    source = line_source(worker.chunks, dataset_uri)
    retried = {"max_retries": TASK_RETRIES}
    with warnings.catch_warnings():  # Ray 2.60 deprecates the only way in for `max_retries`, and names no other
        warnings.simplefilter("ignore", RayDeprecationWarning)
        lines = ray.data.read_datasource(
            source, concurrency=parallelism, override_num_blocks=len(worker.chunks), ray_remote_args=retried
        )
        lines.context.enable_progress_bars = False
        done = lines.map_batches(worker, batch_size=None, batch_format="pyarrow", concurrency=parallelism, **retried)
    for table in done.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        raise_stop(table)
        yield table


def keep_quiet() -> None:
    """Leave Ray Data's account of itself to its log file; progress and errors reach the user through the step."""
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL)


def raise_stop(reports: Any) -> None:
    """Raise what a table says that is not of reports but of a Stop."""
    (row,) = reports.slice(0, 1).to_pylist()
    if row["stop"] is None:
        return
    if row["number"]:
        raise OSError(row["number"], row["stop"], row["file"])
    raise UserError(row["stop"])


def line_source(chunks: Sequence[Chunk], dataset_uri: str) -> Any:
    """A Ray Data source with one read task for each chunk: tables of `chunk` (number), `line` and `text` (bytes)."""
    from ray.data import Datasource, ReadTask
    from ray.data.block import BlockMetadata

    def read_task(number: int, chunk: Chunk) -> ReadTask:
        size = chunk.stop - chunk.start
        metadata = BlockMetadata(num_rows=chunk.rows, size_bytes=size, exec_stats=None, input_files=None)
        return ReadTask(lambda: iter([read_lines(chunk, number, dataset_uri)]), metadata)

    class JsonLines(Datasource):
        def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
            return [read_task(number, chunk) for number, chunk in enumerate(chunks)]

        def estimate_inmemory_data_size(self) -> int:
            return sum(chunk.stop - chunk.start for chunk in chunks)

    return JsonLines()


def read_lines(chunk: Chunk, number: int, dataset_uri: str) -> Any:
    """The lines of a chunk that are not blank, with their numbers in the file."""
    import pyarrow as pa

    fs, folder = filesystem(dataset_uri)
    raw = fs.cat_file(f"{folder}/{chunk.file}", start=chunk.start, end=chunk.stop)
    texts = [(line, text) for line, text in enumerate(raw.split(b"\n"), chunk.first_line) if text.strip()]
    lines, texts = [line for line, _ in texts], [text for _, text in texts]
    return pa.table({"chunk": [number] * len(lines), "line": lines, "text": pa.array(texts, pa.binary())})
