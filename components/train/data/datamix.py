"""Shares of the sources in what is trained on: `datamix: a:1,b:3` draws one example of a for three of b, at every moment.

Weights are proportions of examples, normalised (not of tokens, nor of epochs). Worked example: of the first 10 draws of
`a:1,b:3`, floor(10 * 1/4) = 2 are a's and 10 - 2 = 8 are b's; of the first 12, 3 and 9. A source is never more than one
draw away from its share.
"""

from __future__ import annotations

import difflib
import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from components.errors import UserError

# Not any number that Fraction reads: 1e9999999 would keep it busy for ever.
NUMBER = re.compile(r"-?\d{1,15}(/\d{1,15})?|-?\d{0,15}\.\d{0,15}|-?\d{1,6}(\.\d{1,9})?[eE][-+]?\d")


@dataclass(frozen=True, eq=False)
class MixSource:
    """Rows of the index (uint32) that are drawn from in the proportion `weight`; all weights add up to 1."""

    name: str
    rows: np.ndarray
    weight: Fraction


def parse_datamix(text: str) -> dict[str, Fraction]:
    """`a:1, b:3` as shares of 1 by name. ValueError for what is not of this form, and for a name that comes twice."""
    weights: dict[str, Fraction] = {}
    for part in "".join(text.split()).split(","):
        name, _, number = part.rpartition(":")
        if not name:
            raise ValueError(f"datamix: {part!r} is not of the form name:weight, as in `a:1,b:3`")
        if name in weights:
            raise ValueError(f"datamix: {name} is named twice; give it one weight")
        try:
            weights[name] = Fraction(number if NUMBER.fullmatch(number) else "")
        except (ValueError, ZeroDivisionError):
            raise ValueError(f"datamix: the weight of {name} is {number[:40]!r}, which is no number") from None
        if weights[name] <= 0:
            raise ValueError(f"datamix: the weight of {name} is {number}; it must be positive (leave the source out)")
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def choose_sources(
    datamix: str | None, names: Sequence[str], codes: np.ndarray, usable: np.ndarray
) -> tuple[MixSource, ...]:
    """The sources of a training: those of the datamix, or by default all rows as one, which keeps their natural shares.

    `codes` (int [rows]) says which of `names` each row of the index is from, `usable` (bool [rows]) which may be drawn.
    Raises UserError for a name that the index does not have, and for a source without a usable row.
    """
    if datamix is None:
        return (MixSource("all", np.flatnonzero(usable).astype(np.uint32), Fraction(1)),)
    weights = parse_datamix(datamix)
    known = {name: code for code, name in enumerate(names)}
    chosen = []
    for name, weight in weights.items():
        if name not in known:
            raise UserError(f"train.datamix names {name}, which the data set does not have; {suggestion(name, names)}")
        rows = np.flatnonzero((codes == known[name]) & usable).astype(np.uint32)
        if not len(rows):
            raise UserError(f"train.datamix names {name}, which has no example that fits into a pack")
        chosen.append(MixSource(name, rows, weight))
    return tuple(chosen)


def suggestion(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"its sources are {', '.join(sorted(names))}"


def shares(weights: Sequence[Fraction], draws: int) -> tuple[int, ...]:
    """How many of the first `draws` fall on each source; they add up to it."""
    ends = [math.floor(draws * sum(weights[:n])) for n in range(len(weights) + 1)]
    return tuple(end - start for start, end in itertools.pairwise(ends))
