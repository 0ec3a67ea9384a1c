"""A shuffle without storage: the n-th draw of a source is a function of (seed, source, n), and each epoch draws every row once.

A permutation of any size is a Feistel network over the next power of two, walked until it lands inside; integer arithmetic
only, so it is the same on every machine and with every version of numpy. An epoch first permutes spans of neighbouring rows,
which lie in the same shard, then the rows of each window of spans: at 100 million rows a reader needs the shards of one
window at a time, and up to WINDOW rows the shuffle is a full one.
"""

from __future__ import annotations

import numpy as np

SPAN = 1024  # neighbouring rows that stay in the same window
WINDOW = SPAN * 256  # rows that are shuffled with each other
ROUNDS = 6


def draws(first: int, stop: int, size: int, *, seed: int, source: int) -> np.ndarray:
    """Rows of the draws `first`..`stop - 1` of a source of `size` rows: int64, below `size`.

    Draws e * size .. (e + 1) * size - 1 are a permutation of the rows, another one for each epoch e.
    """
    number = np.arange(first, stop, dtype=np.uint64)
    epoch, place = np.divmod(number, np.uint64(size))
    key = mixed(seed, source, epoch)
    if size <= WINDOW:
        return permuted(place, np.full_like(place, size), key).astype(np.int64)
    width = np.uint64(-(-size // -(-size // WINDOW)))  # of windows as equal as they can be
    window, inside = np.divmod(place, width)
    widths = np.minimum(np.uint64(size) - window * width, width)
    place = window * width + permuted(inside, widths, mixed(key, window))
    span, inside = np.divmod(place, np.uint64(SPAN))
    whole = size // SPAN  # the rows left over are too few for a span: always of the last window, in any order there
    moved = permuted(np.minimum(span, np.uint64(whole - 1)), np.full_like(span, whole), mixed(key, -1))
    places: np.ndarray = (np.where(span < whole, moved, span) * np.uint64(SPAN) + inside).astype(np.int64)
    return places


def permuted(numbers: np.ndarray, sizes: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Where the permutation chosen by `keys` of 0..sizes-1 takes each number; all uint64 of one shape, numbers below sizes."""
    bits = max(2, int(sizes.max(initial=1) - 1).bit_length())
    result = feistel(numbers, bits, keys)
    outside = np.flatnonzero(result >= sizes)
    while len(outside):  # a cycle that starts inside comes back inside
        result[outside] = feistel(result[outside], bits, keys[outside])
        outside = outside[result[outside] >= sizes[outside]]
    return result


def feistel(numbers: np.ndarray, bits: int, keys: np.ndarray) -> np.ndarray:
    """A permutation of 0..2**bits-1, one for each key: the halves of a number are changed by turns, each by the other."""
    low_bits = np.uint64(bits // 2)
    high_mask, low_mask = np.uint64((1 << (bits - bits // 2)) - 1), np.uint64((1 << (bits // 2)) - 1)
    high, low = numbers >> low_bits, numbers & low_mask
    for turn in range(ROUNDS):
        if turn % 2:
            low = low ^ (scramble(keys + high + np.uint64(turn << 40)) & low_mask)
        else:
            high = high ^ (scramble(keys + low + np.uint64(turn << 40)) & high_mask)
    return (high << low_bits) | low


def mixed(*parts: int | np.ndarray) -> np.ndarray:
    """One key of several numbers (taken modulo 2**64), elementwise: uint64 [n], or [1] of integers alone."""
    key = np.zeros(1, np.uint64)
    for part in parts:
        value = np.array([part % (1 << 64)], np.uint64) if isinstance(part, int) else part.astype(np.uint64)
        key = scramble(key + value)
    return key


def scramble(values: np.ndarray) -> np.ndarray:
    """SplitMix64's step: every bit of the result depends on every bit of the value (Steele et al. 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    scrambled: np.ndarray = values ^ (values >> np.uint64(31))
    return scrambled
