"""One look at the lines of a data set before the cluster works on it: where to cut, which ids repeat, what forbids a start.

A chunk is the unit of work: one task reads its lines and writes the shard of the same number. Cutting by lines alone makes
the shards independent of the number of workers. Of a row 28 bytes are kept in memory: a digest of its id, and where it is.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from components.errors import UserError
from components.media_files.root import PathOutsideRoot, require_inside

KEY_BYTES = 16
CHUNK_BYTES = 32 << 20  # of JSON lines; well below the size at which Ray Data splits a block


@dataclass
class Chunk:
    """Lines `first_line`.. of one file, at bytes `start` to `stop`; `repeated` maps a line to why its id is refused."""

    split: str
    number: int
    start: int
    first_line: int
    stop: int = 0
    rows: int = 0
    repeated: dict[int, str] = field(default_factory=dict)
    sha256: str = ""  # of its lines that are not blank, so that who reads them again knows that they are the same

    @property
    def file(self) -> str:
        return f"{self.split}.jsonl"

    @property
    def shard(self) -> str:
        """Name of its shard in the folder of the split."""
        return f"shard-{self.number:05d}.parquet"


class Scan:
    """Cuts the files of one data set into chunks; ids are unique across all files that it sees."""

    def __init__(self, rows_per_shard: int) -> None:
        self.rows_per_shard = rows_per_shard
        self._chunks: list[Chunk] = []  # of all files
        self._keys = bytearray()  # KEY_BYTES of each row that is JSON
        self._lines = array("q")  # of these, negative where there is no id
        self._places = array("I")  # numbers of their chunks

    def chunks(self, path: Path, split: str) -> list[Chunk]:
        """The chunks of one JSONL file. UserError for a path out of the data root and for an unaccepted role `gpt`."""
        chunks: list[Chunk] = []
        sums: list[Any] = []
        for line, offset, raw in numbered_lines(path):
            chunk = chunks[-1] if chunks else None
            if chunk is None or chunk.rows == self.rows_per_shard or chunk.stop - chunk.start >= CHUNK_BYTES:
                chunk = Chunk(split, len(chunks), offset, line)
                sums.append(hashlib.sha256())
                chunks.append(chunk)
                self._chunks.append(chunk)
            chunk.stop = offset + len(raw)
            if raw.strip():
                chunk.rows += 1
                sums[-1].update(raw.removesuffix(b"\n") + b"\n")
                self.look_at(raw, chunk, line)
        for chunk, sha in zip(chunks, sums, strict=True):
            chunk.sha256 = sha.hexdigest()
        return [chunk for chunk in chunks if chunk.rows]

    def look_at(self, raw: bytes, chunk: Chunk, line: int) -> None:
        row = parse_json(raw)
        if row is None:
            return  # the worker says what is wrong with it
        refuse_to_start(row, f"{chunk.file}:{line}")
        id = row.get("id")
        self._keys += hashlib.blake2b(str(id).encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()
        self._lines.append(line if id is not None else -line)
        self._places.append(len(self._chunks) - 1)

    def refuse_repeated(self) -> None:
        """Tell the chunks which of their rows have an id that an earlier row of any file has, be that good or bad."""
        if not self._lines:
            return
        keys = np.frombuffer(self._keys, f"S{KEY_BYTES}")
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        is_first = np.concatenate([[True], keys[1:] != keys[:-1]])
        firsts = np.flatnonzero(is_first)
        for place in np.flatnonzero(~is_first):
            first = firsts[np.searchsorted(firsts, place) - 1]
            self._refuse(order[place], order[first])

    def _refuse(self, row: int, first: int) -> None:
        line, first_line = self._lines[row], abs(self._lines[first])
        chunk, first_chunk = self._chunks[self._places[row]], self._chunks[self._places[first]]
        if line > 0:
            where = f"line {first_line}" if first_chunk.file == chunk.file else f"{first_chunk.file} line {first_line}"
            chunk.repeated[line] = f"duplicate id of {where}"


def numbered_lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """(line from 1, byte offset, line with its end) of a file."""
    offset = 0
    with open(path, "rb") as file:
        for line, raw in enumerate(file, start=1):
            yield line, offset, raw
            offset += len(raw)


def parse_json(raw: bytes) -> Mapping[str, Any] | None:
    """The JSON object of a line, or None when it is none."""
    try:
        row = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def refuse_to_start(row: Mapping[str, Any], where: str) -> None:
    """UserError for what is wrong with the data set as a whole rather than with one row of it."""
    for key in ("image", "video"):
        paths = row.get(key)
        for path in paths if isinstance(paths, list) else [paths]:
            if isinstance(path, str) and path:
                try:
                    require_inside(path)
                except PathOutsideRoot as error:
                    raise PathOutsideRoot(f"{where}: {key} {error}") from None
    turns = row.get("conversations")
    roles = [turn.get("from") for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []
    if "gpt" in roles:
        raise UserError(
            f"{where}: the role `gpt` is not accepted; write `assistant`, or set convert.accept_gpt_role=true"
        )
