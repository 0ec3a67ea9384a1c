"""What a comparison says of one task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.compare.intervals import Interval, Tally
from components.evidence.paired import Paired


@dataclass(frozen=True)
class Comparison:
    """The figures of one task. `against` holds the candidate's paired differences to `before` and to the `champion`.

    `limit` is set when only the first so many rows were evaluated; `rejected` rows could not be asked, of which
    `rejected_first` holds the first as {id, reason}.
    """

    pipeline: str
    task: str
    metric: str
    confidence: float
    before: Interval
    after: Interval
    gain: Interval
    counts: Tally
    limit: int | None
    against: Mapping[str, Paired]
    best: float = 1.0
    champion: Interval | None = None
    rejected: int = 0
    rejected_first: Sequence[Mapping[str, str]] = ()


def summary(c: Comparison) -> dict[str, Any]:
    """The JSON that the gate and the pipeline's summary read."""
    return {
        "metric": c.metric,
        "best": c.best,
        "not_measured": None,
        "before": c.before.value,
        "before_ci": [c.before.low, c.before.high],
        "after": c.after.value,
        "after_ci": [c.after.low, c.after.high],
        "champion": None if c.champion is None else c.champion.value,
        "gain": c.gain.value,
        "ci_low": c.gain.low,
        "ci_high": c.gain.high,
        "confidence": c.confidence,
        "n": c.counts.n,
        "n_fixed": c.counts.fixed,
        "n_broken": c.counts.broken,
        "n_rejected": c.rejected,
        "limit": c.limit,
        "against": {who: paired.as_json() for who, paired in c.against.items()},
    }
