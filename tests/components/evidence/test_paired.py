"""The paired score interval: worked by hand, and as often right as it says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.evidence.paired import Paired, paired


def changed(fixed: int, broken: int, same: int) -> Paired:
    before = [0.0] * fixed + [1.0] * broken + [1.0] * same
    return paired(before, [1.0] * fixed + [0.0] * broken + [1.0] * same)


def test_the_test_against_zero_is_mcnemars() -> None:
    t = (30 - 10) / math.sqrt(30 + 10)
    assert changed(30, 10, 10_000).p_better() == pytest.approx(0.5 * math.erfc(t / math.sqrt(2)), rel=5e-3)


@pytest.mark.parametrize(("fixed", "shown"), [(4, False), (5, True)])
def test_so_many_fixed_and_none_broken_prove_something_when_the_sign_test_says_so(fixed: int, shown: bool) -> None:
    assert (changed(fixed, 0, 0).p_better() < 0.05) is shown  # 1/16 and 1/32


def test_the_lower_bound_and_the_test_agree() -> None:
    for fixed, broken in [(9, 3), (10, 3), (11, 3), (40, 28), (40, 26), (30, 10)]:
        found = changed(fixed, broken, 400)
        assert (found.bounds(0.95)[0] > 0) == (found.p_better() < 0.05)


@pytest.mark.case("E19b")
@pytest.mark.parametrize("counts", [(80, 0, 0), (0, 80, 0), (0, 0, 80)])
def test_the_interval_does_not_claim_certainty_at_the_edges(counts: tuple[int, int, int]) -> None:
    low, high = changed(*counts).interval(0.95)
    assert high - low > 0.04


@pytest.mark.case("E19b")
@pytest.mark.parametrize("rates", [(0.02, 0.0), (0.05, 0.05), (0.3, 0.05), (0.01, 0.01)])
def test_the_interval_holds_the_truth_as_often_as_it_says(rates: tuple[float, float]) -> None:
    draws = np.random.default_rng(0).multinomial(80, [*rates, 1 - sum(rates)], size=1000)
    intervals = [changed(int(f), int(b), int(same)).interval(0.95) for f, b, same in draws]
    held = sum(low - 1e-9 <= rates[0] - rates[1] <= high + 1e-9 for low, high in intervals)
    assert held >= 0.935 * len(intervals)  # 0.95, less two standard errors of 1,000 draws


def test_questions_of_one_cluster_count_as_one_where_they_always_agree() -> None:
    before, after = [0.0] * 20 + [1.0] * 80, [1.0] * 20 + [1.0] * 80
    apart = paired(before[::5], after[::5])
    together = paired(before, after, [str(n // 5) for n in range(100)])
    assert together.p_better() == pytest.approx(apart.p_better())
    assert together.bounds(0.95) == pytest.approx(apart.bounds(0.95), abs=0.02)


def test_one_cluster_proves_nothing() -> None:
    found = paired([0.0] * 9, [1.0] * 9, ["a"] * 9)
    assert (found.bounds(0.95), found.p_better()) == ((-1.0, 1.0), 1.0)


def test_turned_round_the_bounds_change_places() -> None:
    found = changed(30, 10, 60)
    low, high = found.bounds(0.9)
    assert found.turned().bounds(0.9) == pytest.approx((-high, -low))


def test_it_survives_json() -> None:
    found = changed(3, 1, 5)
    assert Paired.from_json(found.as_json()) == found


def test_scores_of_another_number_of_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="2 scores before, 1 after"):
        paired([0.0, 1.0], [1.0])


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="not a finite number"):
        paired([0.0, math.nan], [1.0, 1.0])


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10), st.integers(0, 5)), max_size=40), st.floats(0.51, 0.999))
def test_bounds_are_finite_around_the_gain_and_no_wider_than_the_scores(
    rows: list[tuple[float, float, int]], level: float
) -> None:
    found = paired([r[0] for r in rows], [r[1] for r in rows], [str(r[2]) for r in rows], best=10.0)
    low, high = found.bounds(level)
    assert -10 <= low <= found.gain + 1e-9
    assert found.gain - 1e-9 <= high <= 10
