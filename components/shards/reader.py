"""Examples read back from the shards of preprocessing: where each lies, and its arrays by shard and row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import numpy as np

from components.errors import UserError
from plm_model.family import Collator
from plm_model.packs.example import ARRAYS, Example
from plm_model.packs.stored import Item, WrongModel

FOLDER = "train"
INDEX = f"{FOLDER}/index.parquet"


class CorruptExample(ValueError):
    """An example whose stored bytes cannot be used; the message says why."""


class Place(NamedTuple):
    """Where an example lies: a shard's file in the data set, as `train/shard-00000.parquet`, and the row in it."""

    shard: str
    row: int


@dataclass(frozen=True, eq=False)
class Index:
    """One entry per example, in the order of the index file; a column of names is codes (int32) into a short list.

    Ids are not kept in memory (100 million of them would take gigabytes): they lie in the shards, and in `path`.
    """

    path: Path
    source_names: tuple[str, ...]
    source_codes: np.ndarray
    shard_names: tuple[str, ...]
    shard_codes: np.ndarray
    rows: np.ndarray
    tokens: np.ndarray
    media: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def place(self, number: int) -> Place:
        return Place(self.shard_names[self.shard_codes[number]], int(self.rows[number]))

    def source(self, number: int) -> str:
        name: str = self.source_names[self.source_codes[number]]
        return name

    def ids(self, numbers: np.ndarray) -> list[str]:
        """The ids of a few examples, read from the file."""
        import pyarrow.parquet as parquet

        ids: list[str] = parquet.read_table(self.path, columns=["id"]).column("id").take(numbers).to_pylist()
        return ids


def read_index(path: Path) -> Index:
    """The index of a preprocessed data set. Raises UserError when it holds no example."""
    import pyarrow.parquet as parquet

    names, numbers = ("source", "shard"), ("row", "tokens", "media")
    table = parquet.read_table(path, columns=[*names, *numbers], read_dictionary=names)
    if not table.num_rows:
        raise UserError(f"{path}: the data set holds no example to train on")
    table = table.unify_dictionaries()
    sources, shards = (table.column(name).combine_chunks() for name in names)
    return Index(
        path,
        tuple(sources.dictionary.to_pylist()),
        sources.indices.to_numpy(),
        tuple(f"{path.parent.name}/{name}" for name in shards.dictionary.to_pylist()),
        shards.indices.to_numpy(),
        *(table.column(name).to_numpy().astype(np.int32) for name in numbers),
    )


class OpensShards(Protocol):
    """Where shards are opened: a file of the data set by its relative path, for reading."""

    def open(self, rel: str) -> IO[bytes]: ...


class ShardReader:
    """Gives examples by place. Pickles without what it has read, so that every process reads for itself.

    Decoded examples, and the row groups they came from, stay in memory up to `cache_bytes` each; the rest is read again.
    """

    def __init__(self, files: OpensShards, collator: Collator, cache_bytes: int = 256 << 20) -> None:
        self.files = files
        self.collator = collator
        self.cache_bytes = cache_bytes
        self._shards: dict[str, Shard] = {}
        self._groups = BoundedCache(cache_bytes)
        self._examples = BoundedCache(cache_bytes)

    def __reduce__(self) -> tuple[Any, ...]:
        return ShardReader, (self.files, self.collator, self.cache_bytes)

    def read(self, place: Place) -> Item:
        """The example at a place. Raises CorruptExample when its bytes cannot be used, OSError when they cannot be had."""
        found = self._examples.find(place)
        if found is None:
            try:
                found = self._decode(place)
            except OSError as error:
                if error.errno is not None:  # the system's: a disk or a network, not the data
                    raise
                raise CorruptExample(reason_of(error)) from error
            except WrongModel as error:
                raise UserError(f"{error}; preprocess again") from None
            except ValueError as error:  # of Arrow, of the images, of a count that does not fit
                raise CorruptExample(reason_of(error)) from error
            size = sum(array.nbytes for array in found.media.values()) + sum(
                getattr(found.example, name).nbytes for name in ARRAYS
            )
            self._examples.keep(place, found, size)
        return found

    def id_of(self, place: Place) -> str:
        """The id of an example, or its place where its row cannot be read either."""
        try:
            table, row = self._group(place)
        except (OSError, ValueError):
            return f"row {place.row} of {place.shard}"
        id: str = table.column("id")[row].as_py()
        return id

    def _decode(self, place: Place) -> Item:
        table, row = self._group(place)
        example = Example(**{name: list_at(table.column(name).chunk(0), row) for name in ARRAYS})
        id = table.column("id")[row].as_py()
        return self.collator.item(id, example, table.column("media").chunk(0)[row].as_py() or ())

    def _group(self, place: Place) -> tuple[Any, int]:
        """The row group that holds a row of a shard, and the row's place in it."""
        shard = self._shards.get(place.shard)
        if shard is None:
            with self.files.open(place.shard) as file:
                shard = self._shards.setdefault(place.shard, Shard.open(file))
        group = int(np.searchsorted(shard.starts, place.row, side="right")) - 1
        table = self._groups.find((place.shard, group))
        if table is None:
            with self.files.open(place.shard) as file:
                table = shard.read(file, group)
            self._groups.make_room(table.nbytes)
            self._groups.keep((place.shard, group), table, table.nbytes)
        return table, place.row - int(shard.starts[group])


def reason_of(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


@dataclass(frozen=True)
class Shard:
    """A shard's footer, and the number of the first row of each row group. No file stays open."""

    footer: Any
    starts: np.ndarray

    @classmethod
    def open(cls, file: IO[bytes]) -> Shard:
        """Read the footer."""
        import pyarrow.parquet as parquet

        footer = parquet.read_metadata(file)
        rows = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
        return cls(footer, np.cumsum([0, *rows[:-1]]))

    def read(self, file: IO[bytes], group: int) -> Any:
        """One row group as an Arrow table in one piece."""
        import pyarrow.parquet as parquet

        whole = parquet.ParquetFile(file, metadata=self.footer)
        return whole.read_row_group(group, columns=["id", *ARRAYS, "media"], use_threads=False).combine_chunks()


class BoundedCache:
    """Values by key, up to a sum of bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._values: dict[Any, tuple[Any, int]] = {}
        self._used = 0

    def find(self, key: Any) -> Any | None:
        return self._values.get(key, (None, 0))[0]

    def keep(self, key: Any, value: Any, size: int) -> None:
        """Keep a value if there is room for it."""
        if self._used + size <= self.limit:
            self._values[key] = (value, size)
            self._used += size

    def make_room(self, size: int) -> None:
        """Drop the oldest values until `size` more bytes fit."""
        while self._values and self._used + size > self.limit:
            self._used -= self._values.pop(next(iter(self._values)))[1]


def list_at(column: Any, row: int) -> np.ndarray:
    """Row of an Arrow list<int32> array, without a copy."""
    start, end = column.offsets[row].as_py(), column.offsets[row + 1].as_py()
    values: np.ndarray = column.values.slice(start, end - start).to_numpy()
    return values
