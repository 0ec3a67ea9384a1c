"""Several questions asked of the same data: p-values that stay honest together."""

from __future__ import annotations

from collections.abc import Mapping


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values: those below a level are all true but for that share of draws, however many there are.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979.
    Worked example: a 0.01, b 0.04, c 0.03 -> a 0.03 (three times), c 0.06 (twice), b 0.06 (once, but no less than c).
    """
    adjusted: dict[str, float] = {}
    highest = 0.0
    for place, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[name]))
        adjusted[name] = highest
    return adjusted
