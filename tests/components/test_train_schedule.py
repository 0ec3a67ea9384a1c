from __future__ import annotations

import pytest

from components.train.schedule import learning_rate

EXAMPLE = {"steps": 6, "warmup": 2, "peak": 1.0, "min_ratio": 0.1}


def test_worked_example_of_the_docstring() -> None:
    rates = [learning_rate(step, **EXAMPLE) for step in range(1, 7)]
    assert rates == pytest.approx([0.5, 1.0, 0.868, 0.55, 0.232, 0.1], abs=1e-3)


def test_first_step_learns_something_without_warm_up() -> None:
    assert learning_rate(1, **{**EXAMPLE, "warmup": 0}) == 1.0


def test_last_step_has_the_smallest_rate_whatever_the_warm_up() -> None:
    assert [learning_rate(6, **{**EXAMPLE, "warmup": n}) for n in range(6)] == pytest.approx([0.1] * 6)


def test_a_run_shorter_than_its_warm_up_only_rises() -> None:
    rates = [learning_rate(step, steps=3, warmup=10, peak=1.0, min_ratio=0.1) for step in (1, 2, 3)]
    assert rates == pytest.approx([0.1, 0.2, 0.3])
