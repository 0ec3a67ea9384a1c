"""What a preprocessed data set amounts to, in figures."""

from __future__ import annotations

from typing import Any

import numpy as np

from components.noted import Noted
from components.preprocess.outcome import SPLITS, Outcome
from components.shards.writer import COUNTS

SUMS = ("tokens", *COUNTS)


def statistics(outcome: Outcome) -> dict[str, dict[str, Any]]:
    """Figures by split: rows = used + repaired + rejected, examples, what was noticed about them, sums of tokens, media and
    bytes, and lengths."""
    return {split: of_split(outcome.good[split], outcome.bad[split].num_rows, outcome.noted[split]) for split in SPLITS}


def of_split(good: Any, rejected: int, noted: Noted) -> dict[str, Any]:
    lengths = good["tokens"].to_numpy()
    return {
        "rows": good.num_rows + rejected,
        "used": good.num_rows - noted.repaired,
        "repaired": noted.repaired,
        "rejected": rejected,
        "examples": good.num_rows,
        "noted": noted.to_json(),
        **{name: total(good[name]) for name in (*SUMS, "media_bytes")},
        "longest": int(lengths.max(initial=0)),
        "token_lengths": histogram(lengths),
        "sources": {row["source"]: row["examples"] for row in sorted(by_source(good), key=lambda row: row["source"])},
    }


def total(column: Any) -> int:
    import pyarrow.compute as pc

    return pc.sum(column).as_py() or 0


def by_source(good: Any) -> list[dict[str, Any]]:
    """Of each source the number of its examples and the sums of what they cost."""
    import pyarrow as pa

    table = pa.table({"source": good["source"].cast(pa.string()), **{name: good[name] for name in SUMS}})
    wanted = [("source", "count"), *((name, "sum") for name in SUMS)]
    names = {"source": "source", "source_count": "examples", **{f"{name}_sum": name for name in SUMS}}
    rows = table.group_by("source").aggregate(wanted).to_pylist()
    return [{names[name]: value for name, value in row.items()} for row in rows]


def histogram(lengths: np.ndarray) -> dict[str, int]:
    """How many examples have at most so many tokens and more than half of it: {"64": 3, "128": 9}. `lengths` are at least 1."""
    bits, counts = np.unique(np.frexp(np.asarray(lengths) - 1)[1], return_counts=True)
    return {str(1 << bit): count for bit, count in zip(bits.tolist(), counts.tolist(), strict=True)}
