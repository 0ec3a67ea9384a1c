"""Train or test, decided by the content of the images: what looks the same is on one side, in every run.

Records that share an image belong together, also through others (a multi-image record joins its images' groups). Each
group draws a number in [0, 1) from the digest of its smallest content and the seed; below `test_fraction` it is test.

A record is not kept: 16 bytes of each content that it shows are, and the number that this content alone would draw.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

KEY_BYTES = 16
KEYS = f"S{KEY_BYTES}"
SHA256 = re.compile("[0-9a-f]{64}")
DIGEST, NAME, LIST = b"d", b"n", b"l"  # first byte of a key: digests sort as they are, and before names


class Split:
    """What the records show, told in their order; then, for all of them, which are held out and how many repeat others."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._keys = bytearray()  # of every content of every record
        self._draws = array("d")  # a number for each of these
        self._sizes = array("I")  # contents of each record
        self._pictured = bytearray()  # whether each record's contents are images
        self._names: dict[bytes, str] = {}  # contents in records of several that are no sha256

    def add(self, contents: Sequence[str], pictured: bool = False) -> None:
        """The next record. `contents` are hex sha256 of what it shows, or a name for what has none; at least one."""
        for content in contents:
            key = key_of(content)
            self._keys += key
            self._draws.append(draw(content, self.seed))
            if len(contents) > 1 and key[:1] == NAME:
                self._names[key] = content
        self._sizes.append(len(contents))
        self._pictured.append(pictured)

    def held_out(self, test_fraction: float) -> np.ndarray:
        """For each record whether it is held out: bool [records].

        Where the fraction is neither 0 nor 1 and there are two groups, neither side stays empty.
        """
        numbers = self._numbers()
        held_out = numbers < test_fraction
        if 0 < test_fraction < 1 and len(numbers) and numbers.min() < numbers.max():
            held_out |= numbers == numbers.min()
            held_out &= numbers != numbers.max()
        return held_out

    def repeated(self) -> int:
        """How many records with images show only what an earlier one showed."""
        sizes, keys = np.frombuffer(self._sizes, np.uint32), np.frombuffer(self._keys, KEYS)
        pictured = np.frombuffer(self._pictured, bool)
        one, several = pictured & (sizes == 1), pictured & (sizes > 1)
        shown = keys[np.repeat(one, sizes)]
        if several.any():
            shown = np.concatenate([shown, keys_of_lists(keys[np.repeat(several, sizes)], sizes[several])])
        shown.sort()
        return int((shown[1:] == shown[:-1]).sum())

    def _numbers(self) -> np.ndarray:
        """The number that the group of each record draws: float64 [records]."""
        sizes, draws = np.frombuffer(self._sizes, np.uint32), np.frombuffer(self._draws, np.float64)
        several = sizes > 1
        if not several.any():
            return draws
        keys, inner = np.frombuffer(self._keys, KEYS), np.repeat(several, sizes)
        distinct, one, place = np.unique(keys[inner], return_index=True, return_inverse=True)
        drawn = draws[inner][one[self._smallest(distinct, place, sizes[several])]]  # of each distinct content's group
        numbers = np.empty(len(sizes))
        numbers[several] = drawn[place[starts_of(sizes[several])]]
        alone = keys[~inner]
        found = np.searchsorted(distinct, alone).clip(max=len(distinct) - 1)
        numbers[~several] = np.where(distinct[found] == alone, drawn[found], draws[~inner])
        return numbers

    def _smallest(self, distinct: np.ndarray, place: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """For each distinct content, the smallest one of its group. `place` says which the records' contents are."""
        digests = int(np.searchsorted(distinct, NAME))
        keys: Any = distinct  # each is bytes
        named = sorted(range(digests, len(distinct)), key=lambda n: self._names[keys[n].ljust(KEY_BYTES, b"\0")])
        order = np.concatenate([np.arange(digests), np.array(named, int)])
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        smallest: np.ndarray = order[np.frombuffer(join(rank[place], sizes, len(distinct)), np.int64)[rank]]
        return smallest


def join(contents: np.ndarray, sizes: np.ndarray, count: int) -> array[int]:
    """Each of `count` contents -> the smallest of its group (union-find); `sizes` says how many contents a record has."""
    parent = array("q", range(count))
    for start, size in runs_of(sizes):
        roots = [find(parent, content) for content in contents[start : start + size].tolist()]
        smallest = min(roots)
        for root in roots:
            parent[root] = smallest
    return array("q", (find(parent, content) for content in range(count)))


def find(parent: array[int], content: int) -> int:
    """The root of a content, with the path to it shortened."""
    while parent[content] != content:
        parent[content] = parent[parent[content]]
        content = parent[content]
    return content


def runs_of(sizes: np.ndarray) -> Iterator[tuple[int, int]]:
    """(start, size) of each record's contents; no list of them all is made."""
    return zip(starts_of(sizes).data, sizes.data, strict=True)


def starts_of(sizes: np.ndarray) -> np.ndarray:
    starts: np.ndarray = np.cumsum(sizes, dtype=np.int64) - sizes
    return starts


def key_of(content: str) -> bytes:
    """16 bytes that tell a content from all others, in the order of the digests."""
    if SHA256.fullmatch(content):
        return DIGEST + bytes.fromhex(content[: 2 * (KEY_BYTES - 1)])
    return NAME + hashlib.sha256(content.encode()).digest()[: KEY_BYTES - 1]


def keys_of_lists(keys: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """A key of each list of contents, in their order; `keys` are those of the contents."""
    found = bytearray()
    for start, size in runs_of(sizes):
        found += LIST + hashlib.sha256(keys[start : start + size].tobytes()).digest()[: KEY_BYTES - 1]
    return np.frombuffer(found, KEYS)


def draw(group: str, seed: int) -> float:
    """A number in [0, 1) that depends on nothing but the group and the seed."""
    digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
