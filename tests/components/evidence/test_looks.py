"""Looks at an evaluation that runs: the published boundaries, and equal models that pass no more often with them."""

from __future__ import annotations

import numpy as np
import pytest

from components.evidence.holm import holm
from components.evidence.looks import critical_values, levels
from components.evidence.power import power, smallest_gain


def test_one_look_is_the_confidence_itself() -> None:
    assert levels(1, 0.95) == pytest.approx((0.95,), abs=1e-4)


@pytest.mark.parametrize(("looks", "constant"), [(2, 1.678), (3, 1.710), (4, 1.733), (5, 1.751), (10, 1.801)])
def test_the_last_look_s_value_is_the_published_one(looks: int, constant: float) -> None:
    """Jennison and Turnbull, "Group Sequential Methods", table 2.3 (two-sided 0.1)."""
    assert critical_values(looks, 0.95)[-1] == pytest.approx(constant, abs=2e-3)


def test_equal_models_pass_any_look_in_five_of_a_hundred_draws() -> None:
    sums = np.random.default_rng(0).standard_normal((40_000, 5)).cumsum(axis=1) / np.sqrt(np.arange(1, 6))
    assert (sums > critical_values(5, 0.95)).any(axis=1).mean() == pytest.approx(0.05, abs=0.003)


def test_holm_of_three() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})


def test_holm_of_none() -> None:
    assert holm({}) == {}


def test_power_is_what_draws_give() -> None:
    draws = np.random.default_rng(0).multinomial(1000, [0.105, 0.055, 0.84], size=20_000)
    z = (draws[:, 0] - draws[:, 1]) / np.sqrt(draws[:, 0] + draws[:, 1])
    assert power(0.05, 1000, 0.16, 0.95) == pytest.approx((z > 1.6464).mean(), abs=0.01)


def test_the_smallest_gain_is_found_with_the_chance_that_it_is_named_with() -> None:
    found = smallest_gain(400, 0.15, 0.95)
    assert found is not None
    assert power(found, 400, 0.15, 0.95) == pytest.approx(0.8, abs=1e-6)


def test_two_questions_find_nothing() -> None:
    assert smallest_gain(2, 0.15, 0.95) is None
