"""Examples that were not trained on, each named with the reason, one small file each, so that nobody writes the same twice.

Files go beside the checkpoints, on a local disk or an object store, named by the place of the example: a rank that meets
the same example again, after a restart too, writes the same file. The step's artifact gets all of them in one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from components.artifacts.files import filesystem, write_json
from components.errors import UserError

FILE = "rejected.jsonl"
ALLOWED = 10  # corrupt examples that may be met in any case
MAX_CORRUPT = 0.01  # of the examples read so far


class TooManyCorrupt(UserError):
    """So much of the data cannot be read that training on would mean training on something else."""


@dataclass(frozen=True)
class Rejected:
    """An example that was not trained on: where it is, and why."""

    id: str
    source: str
    shard: str
    row: int
    reason: str


@dataclass
class RejectedLog:
    """What one rank has met; `uri` is the folder that all ranks write to."""

    uri: str
    read: int = 0
    met: int = 0

    def noted(self, works: Iterable[Any]) -> Iterator[Any]:
        """The same work; what was rejected in it is written on the way. Raises TooManyCorrupt."""
        for work in works:
            self.read += sum(len(micro.ids) for micro in work.micro_batches)
            self.add(work.rejected)
            yield work

    def add(self, rejected: Iterable[Rejected]) -> None:
        for example in rejected:
            self.met += 1
            self.write(example)
            if self.met > max(ALLOWED, MAX_CORRUPT * self.read):
                raise TooManyCorrupt(
                    f"{self.met} of the {self.read} examples read so far are corrupt, the last of them {example.id} "
                    f"(row {example.row} of {example.shard}): {example.reason}. All of them: {self.uri}; "
                    f"preprocess again with --refresh preprocess"
                )

    def write(self, example: Rejected) -> None:
        name = hashlib.sha256(f"{example.shard}:{example.row}".encode()).hexdigest()[:20]
        write_json(f"{self.uri}/{name}.json", asdict(example))


def read_rejected(uri: str) -> list[Rejected]:
    """All that was written to a folder, by shard and row."""
    fs, folder = filesystem(uri)
    found = fs.glob(f"{folder}/*.json") if fs.exists(folder) else []
    examples = [Rejected(**json.loads(fs.cat_file(name))) for name in found]
    return sorted(examples, key=lambda example: (example.shard, example.row))


def write_rejected(file: Any, examples: Iterable[Rejected]) -> None:
    """One JSON object a row, to an open text file."""
    for example in examples:
        file.write(json.dumps(asdict(example), ensure_ascii=False) + "\n")
