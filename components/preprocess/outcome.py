"""What became of every line, as Arrow tables in the order of the lines: about 60 bytes a row beside its id.

Chunks end in any order and each exactly once; only when all have is there an outcome.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.noted import Noted
from components.preprocess.scan import Chunk
from components.shards.writer import index_schema

SPLITS = ("train", "test")
FEW_VALUES = ("source", "shard")  # kept as numbers into a list of them


@dataclass(frozen=True)
class Outcome:
    """By split: `good` has the columns of an index, `line` and `media_bytes`; `bad` has `line`, `id`, `reason` and `place`;
    `noted` counts what was noticed about the good ones."""

    good: Mapping[str, Any]
    bad: Mapping[str, Any]
    noted: Mapping[str, Noted]

    def bad_rows(self) -> Iterator[dict[str, Any]]:
        """{file, line, id, reason, place} of each bad row, in their order."""
        for split, table in self.bad.items():
            for batch in table.to_batches():
                yield from ({"file": f"{split}.jsonl", **row} for row in batch.to_pylist())

    def all_noted(self) -> Noted:
        """What was noticed in all splits together."""
        return sum(self.noted.values(), Noted())


@dataclass(frozen=True)
class WrittenLines:
    """Lines of one chunk that came back together."""

    first: int
    last: int
    good: Any
    bad: Any
    noted: Noted

    @property
    def rows(self) -> int:
        rows: int = self.good.num_rows + self.bad.num_rows
        return rows


def collect(reports: Iterable[Any], chunks: Sequence[Chunk], told: Callable[[int], None]) -> Outcome:
    """Gather tables of reports (columns of `graph.table_schema`); `told` gets the number of rows that are there.

    Raises RuntimeError when a line got lost or was done twice.
    """
    found: list[list[WrittenLines]] = [[] for _ in chunks]
    rows = 0
    for table in reports:
        found[table["chunk"][0].as_py()].append(piece_of(table))
        rows += table.num_rows
        told(rows)
    for chunk, pieces in zip(chunks, found, strict=True):
        pieces.sort(key=lambda piece: piece.first)
        require_each_once(chunk, pieces)
    return Outcome(
        {split: joined(split, chunks, found, lambda piece: piece.good, good_schema()) for split in SPLITS},
        {split: joined(split, chunks, found, lambda piece: piece.bad, bad_schema()) for split in SPLITS},
        {split: sum((piece.noted for piece in of_split(split, chunks, found)), Noted()) for split in SPLITS},
    )


def piece_of(table: Any) -> WrittenLines:
    """The columns that are needed of a table of reports; its own memory, which workers share with us, is let go."""
    import pyarrow.compute as pc

    lines = table["line"].to_numpy()
    if (lines[1:] <= lines[:-1]).any():
        raise RuntimeError(f"lines of one chunk came back twice or in disorder, near line {lines[0]}")
    is_good = pc.is_null(table["reason"])
    good = narrow(table.filter(is_good), good_schema())
    bad = narrow(table.filter(pc.invert(is_good)), bad_schema())
    return WrittenLines(int(lines[0]), int(lines[-1]), good, bad, noted_in(table.filter(is_good)))


def noted_in(good: Any) -> Noted:
    """What was noticed about the examples of a table of reports."""
    import pyarrow.compute as pc

    noted = Noted()
    some = pc.greater(pc.fill_null(pc.list_value_length(good["notes"]), 0), 0)
    for row in good.filter(some).select(["split", "line", "place", "notes"]).to_pylist():
        noted.add(row["notes"], row["place"] or f"{row['split']}.jsonl:{row['line']}")
    return noted


def narrow(table: Any, schema: Any) -> Any:
    import pyarrow as pa

    columns = [table[name].combine_chunks() for name in schema.names]
    columns = [
        column.dictionary_encode() if name in FEW_VALUES else column
        for name, column in zip(schema.names, columns, strict=True)
    ]
    return pa.table(columns, schema.names).cast(schema)


def require_each_once(chunk: Chunk, pieces: Sequence[WrittenLines]) -> None:
    rows = sum(piece.rows for piece in pieces)
    overlap = any(before.last >= after.first for before, after in itertools.pairwise(pieces))
    if rows != chunk.rows or overlap:
        raise RuntimeError(f"{rows} reports came back for {chunk.rows} rows from {chunk.file}:{chunk.first_line}")


def joined(
    split: str,
    chunks: Sequence[Chunk],
    found: Sequence[Sequence[WrittenLines]],
    part: Callable[[WrittenLines], Any],
    schema: Any,
) -> Any:
    import pyarrow as pa

    return pa.concat_tables([schema.empty_table(), *(part(piece) for piece in of_split(split, chunks, found))])


def of_split(split: str, chunks: Sequence[Chunk], found: Sequence[Sequence[WrittenLines]]) -> Iterator[WrittenLines]:
    """The pieces of a split in the order of its lines."""
    for chunk, pieces in zip(chunks, found, strict=True):
        if chunk.split == split:
            yield from pieces


def good_schema() -> Any:
    import pyarrow as pa

    few = pa.dictionary(pa.int32(), pa.string())
    columns = [(field.name, few if field.name in FEW_VALUES else field.type) for field in index_schema()]
    return pa.schema([*columns, ("line", pa.int64()), ("media_bytes", pa.int64())])


def bad_schema() -> Any:
    import pyarrow as pa

    return pa.schema([("line", pa.int64()), ("id", pa.string()), ("reason", pa.string()), ("place", pa.string())])
