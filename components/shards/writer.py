"""A shard is a Parquet file of encoded examples; its index says of each where it is and what it costs.

The index holds one row per example and its columns are all that planning an epoch needs; the shard is opened for the
arrays and the encoded media of an example only.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from plm_model.packs.example import ARRAYS

ROWS_PER_GROUP = 64  # rows read together when one of them is wanted
GROUP_BYTES = 32 << 20
INDEX_GROUP = 1 << 20  # rows
COUNTS = ("supervised", "media", "frames")


def schema() -> Any:
    """Columns of a shard. `record` is the JSON of the whole record.

    `media` is a list of {kind, encoded bytes}: an `image` as it was found, or each `frame` of a video as the model
    sees it; `media_n` counts what the model's encoder runs on.
    """
    import pyarrow as pa

    media = pa.list_(pa.struct([("kind", pa.string()), ("data", pa.binary())]))
    return pa.schema(
        [
            *((name, pa.string()) for name in ("id", "source", "record")),
            *((name, pa.list_(pa.int32())) for name in ARRAYS),
            ("media", media),
            *((name, pa.int32()) for name in ("tokens_n", "supervised", "media_n", "frames")),
        ]
    )


def index_schema() -> Any:
    """Columns of an index: `shard` is a file beside it, `row` counts within that, `tokens` is a length."""
    import pyarrow as pa

    text = ((name, pa.string()) for name in ("id", "source", "shard"))
    return pa.schema([*text, *((name, pa.int32()) for name in ("row", "tokens", *COUNTS))])


def write_shard(fs: Any, path: str, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows as they come, a row group in memory at a time; no file when there is no row. Returns the file's bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    groups = row_groups(rows)
    first = next(groups, None)
    if first is None:
        return 0
    fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    with fs.open(path, "wb") as sink:
        with pq.ParquetWriter(sink, schema(), compression="zstd", use_dictionary=False) as writer:
            for group in itertools.chain([first], groups):
                writer.write_table(pa.Table.from_pylist(list(group), schema()))
        size: int = sink.tell()
        return size


def row_groups(rows: Iterable[Mapping[str, Any]]) -> Iterator[Sequence[Mapping[str, Any]]]:
    """Rows in runs of at most ROWS_PER_GROUP, fewer where their media are large."""
    group: list[Mapping[str, Any]] = []
    size = 0
    for row in rows:
        group.append(row)
        size += sum(len(item["data"]) for item in row["media"])
        if len(group) == ROWS_PER_GROUP or size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def write_index(path: str | Path, entries: Any) -> None:
    """Write the file of an index, of a table that has at least its columns; the same bytes however that is chunked."""
    import pyarrow.parquet as pq

    schema = index_schema()
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, entries.num_rows, INDEX_GROUP):
            rows = entries.select(schema.names).slice(start, INDEX_GROUP)
            writer.write_table(rows.cast(schema).combine_chunks(), INDEX_GROUP)
