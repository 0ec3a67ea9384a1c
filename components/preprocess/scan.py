"""One look at the lines of a data set before the cluster works on it: where to cut.

A chunk is the unit of work: one task reads its lines and writes the shard of the same number. Cutting by lines alone makes
the shards independent of the number of workers. No line is parsed here, and none is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHUNK_BYTES = 32 << 20  # of JSON lines; well below the size at which Ray Data splits a block


@dataclass
class Chunk:
    """Lines `first_line`.. of one file, at bytes `start` to `stop`."""

    split: str
    number: int
    start: int
    first_line: int
    stop: int = 0
    rows: int = 0
    sha256: str = ""  # of its lines that are not blank, so that who reads them again knows that they are the same

    @property
    def file(self) -> str:
        return f"{self.split}.jsonl"

    @property
    def shard(self) -> str:
        """Name of its shard in the folder of the split."""
        return f"shard-{self.number:05d}.parquet"


def chunks_of(path: Path, split: str, rows_per_shard: int) -> list[Chunk]:
    """The chunks of one JSONL file."""
    chunks: list[Chunk] = []
    sums: list[Any] = []
    for line, offset, raw in numbered_lines(path):
        chunk = chunks[-1] if chunks else None
        if chunk is None or chunk.rows == rows_per_shard or chunk.stop - chunk.start >= CHUNK_BYTES:
            chunk = Chunk(split, len(chunks), offset, line)
            sums.append(hashlib.sha256())
            chunks.append(chunk)
        chunk.stop = offset + len(raw)
        if raw.strip():
            chunk.rows += 1
            sums[-1].update(raw.removesuffix(b"\n") + b"\n")
    for chunk, sha in zip(chunks, sums, strict=True):
        chunk.sha256 = sha.hexdigest()
    return [chunk for chunk in chunks if chunk.rows]


def numbered_lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """(line from 1, byte offset, line with its end) of a file."""
    offset = 0
    with open(path, "rb") as file:
        for line, raw in enumerate(file, start=1):
            yield line, offset, raw
            offset += len(raw)
