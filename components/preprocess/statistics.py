"""What a preprocessed data set amounts to, in figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from components.preprocess.graph import Report


def statistics(good: Sequence[Report], bad: Sequence[Report], splits: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Figures by split: examples, rejected rows and their reasons, sums of tokens, tiles and bytes, and lengths."""
    return {
        split: of_split([r for r in good if r.split == split], [r for r in bad if r.split == split]) for split in splits
    }


def of_split(good: Sequence[Report], bad: Sequence[Report]) -> dict[str, Any]:
    lengths = [report.tokens for report in good]
    return {
        "examples": len(good),
        "rejected": len(bad),
        "tokens": sum(lengths),
        "supervised": sum(report.supervised for report in good),
        "tiles": sum(report.tiles for report in good),
        "frames": sum(report.frames for report in good),
        "media_bytes": sum(report.media_bytes for report in good),
        "longest": max(lengths, default=0),
        "token_lengths": histogram(lengths),
        "sources": dict(sorted(Counter(report.source for report in good).items())),
    }


def histogram(lengths: Sequence[int]) -> dict[str, int]:
    """How many examples have at most so many tokens and more than half of it: {"64": 3, "128": 9}."""
    bins = Counter(1 << (length - 1).bit_length() for length in lengths)
    return {str(upper): bins[upper] for upper in sorted(bins)}
