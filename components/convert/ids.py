"""Ids that are unique: told all records in order, which of them have the id of an earlier one, and which are equal to it.

Of a record 24 bytes are kept.
"""

from __future__ import annotations

import hashlib
import re

import numpy as np

ID_BYTES, ROW_BYTES = 16, 8
MARK = "~"


class Ids:
    """Ids with a digest of the row that each belongs to, in the order of the records."""

    def __init__(self) -> None:
        self._ids, self._rows = bytearray(), bytearray()
        self._mark = MARK

    def add(self, id: str, row: bytes) -> None:
        """The next record; `row` is the digest of all that tells its row from others."""
        while id[-1:].isdecimal() and re.search(rf"{self._mark}\d+$", id):
            self._mark += MARK
        self._ids += key_of(id)
        self._rows += row[:ROW_BYTES]

    def repeats(self) -> tuple[np.ndarray, np.ndarray]:
        """For each record how many earlier ones have its id (int64), and whether one of these is equal to it (bool)."""
        ids = np.frombuffer(self._ids, f"S{ID_BYTES}")
        rows = np.frombuffer(self._rows, f"S{ROW_BYTES}")
        order = np.argsort(ids, kind="stable")
        earlier = np.empty(len(ids), np.int64)
        earlier[order] = places_in_runs(new_runs(ids[order]))
        order = np.lexsort((rows, ids))
        equal = np.empty(len(ids), bool)
        equal[order] = ~(new_runs(ids[order]) | new_runs(rows[order]))
        return earlier, equal

    def another(self, id: str, number: int) -> str:
        """The id with a number behind it, as none that was added ends: `a~2`, or `a~~2` where an id itself is like `b~7`."""
        return f"{id}{self._mark}{number}"


def key_of(id: str) -> bytes:
    """16 bytes that tell an id from all others."""
    return hashlib.blake2b(id.encode("utf-8", "surrogatepass"), digest_size=ID_BYTES).digest()


def row_digest(text: str) -> bytes:
    """The digest of a row that is written as JSON."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def new_runs(values: np.ndarray) -> np.ndarray:
    """For each value whether it differs from the one before it: bool."""
    return np.concatenate([np.ones(min(1, len(values)), bool), values[1:] != values[:-1]])


def places_in_runs(starts: np.ndarray) -> np.ndarray:
    """For each value its place, from 0, within the run that `starts` begin."""
    numbers = np.arange(len(starts))
    return numbers - np.maximum.accumulate(np.where(starts, numbers, 0)) if len(starts) else numbers
