"""Train or test, decided by the content of the images: what looks the same is on one side, in every run.

Records that share an image belong together, also through others (a multi-image record joins its images' groups). Each
group draws a number in [0, 1) from the digest of its smallest content and the seed; below `test_fraction` it is test.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence


def split(contents: Sequence[Sequence[str]], test_fraction: float, seed: int) -> list[bool]:
    """For each record, given the digests of what it shows: whether it is held out.

    Where the fraction is neither 0 nor 1 and there are two groups, neither side stays empty.
    """
    joined = join(contents)
    groups = [joined[digests[0]] for digests in contents]
    numbers = {group: draw(group, seed) for group in set(groups)}
    held_out = {group for group, number in numbers.items() if number < test_fraction}
    if 0 < test_fraction < 1 and len(numbers) > 1:
        ordered = sorted(numbers, key=lambda group: (numbers[group], group))
        held_out = (held_out | {ordered[0]}) - {ordered[-1]}
    return [group in held_out for group in groups]


def draw(group: str, seed: int) -> float:
    """A number in [0, 1) that depends on nothing but the group and the seed."""
    digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def join(contents: Sequence[Sequence[str]]) -> dict[str, str]:
    """Each digest -> the smallest digest of its group (union-find)."""
    parent: dict[str, str] = {}
    for digests in contents:
        roots = [find(parent, digest) for digest in digests]
        smallest = min(roots)
        for root in roots:
            parent[root] = smallest
    return {digest: find(parent, digest) for digest in parent}


def find(parent: dict[str, str], digest: str) -> str:
    """The root of a digest, with the path to it shortened."""
    parent.setdefault(digest, digest)
    while parent[digest] != digest:
        parent[digest] = parent[parent[digest]]
        digest = parent[digest]
    return digest


def repeated(contents: Sequence[Hashable]) -> int:
    """How many records show only what an earlier one showed."""
    return len(contents) - len(set(contents))
