"""One look at the lines of a data set before the cluster works on it: where to cut, which ids repeat, what forbids a start.

A chunk is the unit of work: one task reads its lines and writes the shard of the same number. Cutting by lines alone makes
the shards independent of the number of workers. Only ids and offsets are kept in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.errors import UserError
from components.media import PathOutsideRoot, require_inside

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

    @property
    def file(self) -> str:
        return f"{self.split}.jsonl"

    @property
    def shard(self) -> str:
        """Name of its shard in the folder of the split."""
        return f"shard-{self.number:05d}.parquet"


@dataclass
class Scan:
    """Cuts the files of one data set into chunks; ids are unique across all files that it sees.

    Of rows with the same id the first in reading order keeps it, be it good or bad.
    """

    rows_per_shard: int
    accept_gpt_role: bool = False
    seen: dict[str, tuple[str, int]] = field(default_factory=dict)

    def chunks(self, path: Path, split: str) -> list[Chunk]:
        """The chunks of one JSONL file. UserError for a path out of the data root and for an unaccepted role `gpt`."""
        chunks: list[Chunk] = []
        for line, offset, raw in numbered_lines(path):
            chunk = chunks[-1] if chunks else None
            if chunk is None or chunk.rows == self.rows_per_shard or chunk.stop - chunk.start >= CHUNK_BYTES:
                chunk = Chunk(split, len(chunks), offset, line)
                chunks.append(chunk)
            chunk.stop = offset + len(raw)
            if raw.strip():
                chunk.rows += 1
                self.look_at(raw, chunk, line)
        return [chunk for chunk in chunks if chunk.rows]

    def look_at(self, raw: bytes, chunk: Chunk, line: int) -> None:
        row = parse_json(raw)
        if row is None:
            return  # the worker says what is wrong with it
        refuse_to_start(row, f"{chunk.file}:{line}", self.accept_gpt_role)
        first_file, first_line = self.seen.setdefault(str(row.get("id")), (chunk.file, line))
        if row.get("id") is not None and (first_file, first_line) != (chunk.file, line):
            where = f"line {first_line}" if first_file == chunk.file else f"{first_file} line {first_line}"
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


def refuse_to_start(row: Mapping[str, Any], where: str, accept_gpt_role: bool) -> None:
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
    if "gpt" in roles and not accept_gpt_role:
        raise UserError(
            f"{where}: the role `gpt` is not accepted; write `assistant`, or set convert.accept_gpt_role=true"
        )
