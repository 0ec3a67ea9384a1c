"""Examples read back from the shards of preprocessing: row by number, tiles decoded, kept in memory while room lasts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components.errors import UserError
from plm_model.codec import Example
from plm_model.config import PLMConfig
from plm_model.images import tile_images

if TYPE_CHECKING:
    from components.train.plan import PackPlan
    from components.train.settings import TrainConfig

FOLDER = "train"
INDEX = f"{FOLDER}/index.parquet"
ARRAYS = ("tokens", "targets", "pos", "seg", "group")


@dataclass(frozen=True)
class Index:
    """One entry per example, in the order of the index file: where it lies (shard file, row) and how large it is."""

    ids: list[str]
    sources: list[str]
    shards: list[str]
    rows: np.ndarray
    tokens: np.ndarray
    tiles: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


def read_index(path: Path) -> Index:
    """The index of a preprocessed data set. Raises UserError when it holds no example."""
    import pyarrow.parquet as parquet

    table = parquet.read_table(path, columns=["id", "source", "shard", "row", "tokens", "tiles"])
    if not table.num_rows:
        raise UserError(f"{path}: the data set holds no example to train on")
    columns = {name: table.column(name) for name in table.column_names}
    numbers = {name: columns[name].to_numpy() for name in ("row", "tokens", "tiles")}
    return Index(
        *(columns[name].to_pylist() for name in ("id", "source", "shard")),
        *(numbers[name] for name in ("row", "tokens", "tiles")),
    )


def plan_packs(index: Index, settings: TrainConfig) -> PackPlan:
    """The plan of a training. Raises UserError naming the example that is larger than a pack."""
    from components.train.plan import PackPlan

    for size, budget in (("tokens", "pack_tokens"), ("tiles", "pack_tiles")):
        largest = int(np.argmax(getattr(index, size)))
        found, limit = int(getattr(index, size)[largest]), getattr(settings, budget)
        if found > limit:
            raise UserError(
                f"example {index.ids[largest]} has {found} {size}, more than train.{budget}={limit}; "
                f"raise train.{budget}, or preprocess again with smaller limits"
            )
    return PackPlan(
        index.tokens,
        index.tiles,
        seed=settings.seed,
        pack_tokens=settings.pack_tokens,
        pack_tiles=settings.pack_tiles,
        packs_per_step=settings.packs_per_step,
    )


class ShardReader:
    """Gives the examples of an index. `open_shard` maps a file of the data set to a local path.

    Decoded examples, and the row groups they came from, stay in memory up to `cache_bytes` each; the rest is read again.
    """

    def __init__(
        self, index: Index, open_shard: Callable[[str], Path], config: PLMConfig, cache_bytes: int = 256 << 20
    ) -> None:
        self.index = index
        self.open_shard = open_shard
        self.config = config
        self._shards: dict[str, Shard] = {}
        self._groups = BoundedCache(cache_bytes)
        self._examples = BoundedCache(cache_bytes)

    def read(self, number: int) -> tuple[Example, np.ndarray]:
        """Example `number` of the index, with its tiles: uint8 [tiles, 3, H, W]."""
        found = self._examples.find(number)
        if found is None:
            found = self._decode(number)
            example, tiles = found
            self._examples.keep(number, found, tiles.nbytes + sum(getattr(example, name).nbytes for name in ARRAYS))
        return found

    def _decode(self, number: int) -> tuple[Example, np.ndarray]:
        table, row = self._group(self.index.shards[number], int(self.index.rows[number]))
        example = Example(**{name: list_at(table.column(name).chunk(0), row) for name in ARRAYS})
        media = [item["data"] for item in table.column("media").chunk(0)[row].as_py() or ()]
        return example, tile_images(media, self.config.processor, self.config.vision.image_size)

    def _group(self, name: str, row: int) -> tuple[Any, int]:
        """The row group that holds a row of a shard, and the row's place in it."""
        if name not in self._shards:
            self._shards[name] = Shard.open(self.open_shard(f"{FOLDER}/{name}"))
        shard = self._shards[name]
        group = int(np.searchsorted(shard.starts, row, side="right")) - 1
        table = self._groups.find((name, group))
        if table is None:
            table = shard.read(group)
            self._groups.make_room(table.nbytes)
            self._groups.keep((name, group), table, table.nbytes)
        return table, row - int(shard.starts[group])


@dataclass(frozen=True)
class Shard:
    """A shard's file, its footer, and the number of the first row of each row group. No file stays open."""

    path: Path
    footer: Any
    starts: np.ndarray

    @classmethod
    def open(cls, path: Path) -> Shard:
        """Read the footer."""
        import pyarrow.parquet as parquet

        footer = parquet.read_metadata(path)
        rows = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
        return cls(path, footer, np.cumsum([0, *rows[:-1]]))

    def read(self, group: int) -> Any:
        """One row group as an Arrow table in one piece."""
        import pyarrow.parquet as parquet

        with parquet.ParquetFile(self.path, metadata=self.footer) as file:
            return file.read_row_group(group, columns=[*ARRAYS, "media"], use_threads=False).combine_chunks()


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
    return column.values.slice(start, end - start).to_numpy()
