"""Records that wait on the disk until all have been seen: only then is it known which are held out, and which ids repeat."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

from components.convert.ids import Ids
from components.convert.records import Converted
from components.convert.sides import TEST
from components.convert.split import Split


@dataclass(frozen=True)
class Settled:
    """A record as a line of JSON, with an id that no other has; `equal` to an earlier row or not."""

    line: bytes
    place: tuple[str, int]
    notes: frozenset[str]
    held_out: bool
    equal: bool


class Waiting:
    """Takes records in their order and gives them back in it."""

    def __init__(self, file: IO[bytes], split_seed: int) -> None:
        self._file = file
        self._ids = Ids()
        self.split = Split(split_seed)

    def add(self, found: Converted, contents: Sequence[str]) -> None:
        """The next record; `contents` are the digests of what it shows."""
        group = [] if found.goes.group is None else [f"group {found.goes.group}"]
        self.split.add([*contents, *group], pictured=bool(found.record.get("image")))
        self._ids.add(found.record["id"], found.digest)
        # JSON has no tabs of its own, so that the first one ends what stands before the record.
        told = json.dumps([*found.place, sorted(found.notes), found.goes.side])
        self._file.write(f"{told}\t{json_line(found.record)}".encode())

    def settled(self, test_fraction: float) -> Iterator[Settled]:
        """All records, once."""
        held_out = self.split.held_out(test_fraction)
        earlier, equal = self._ids.repeats()
        self._file.seek(0)
        for number, written in enumerate(self._file):
            told, _, line = written.partition(b"\t")
            file, row, notes, side = json.loads(told)
            held = bool(held_out[number]) if side is None else side == TEST
            if earlier[number]:
                line = self._renamed(line, int(earlier[number]) + 1)
                notes.append("repeated_row" if equal[number] else "repeated_id")
            yield Settled(line, (file, row), frozenset(notes), held, bool(equal[number]))

    def _renamed(self, line: bytes, number: int) -> bytes:
        record = json.loads(line)
        record["id"] = self._ids.another(record["id"], number)
        return json_line(record).encode()


def json_line(row: Any) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
