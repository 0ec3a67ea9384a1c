from __future__ import annotations

from dataclasses import replace

import pytest

from components.train.settings import TrainConfig
from components.train.update.schedule import learning_rate

EXAMPLE = TrainConfig(steps=6, lr=1.0, warmup_steps=2, min_lr_ratio=0.1)
ORIGINAL = TrainConfig(steps=500, lr=1.0, warmup_steps=120, min_lr_ratio=0.01, lr_from_zero=True)
SCHEDULES = ("cosine", "linear", "constant", "inverse_sqrt", "wsd")


def rates(settings: TrainConfig) -> list[float]:
    return [learning_rate(step, settings) for step in range(1, settings.steps + 1)]


def test_worked_example_of_the_docstring() -> None:
    assert rates(EXAMPLE) == pytest.approx([0.5, 1.0, 0.868, 0.55, 0.232, 0.1], abs=1e-3)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup", [0, 1, 3])
def test_the_first_step_learns_something(schedule: str, warmup: int) -> None:
    settings = replace(EXAMPLE, schedule=schedule, warmup_steps=warmup)
    assert learning_rate(1, settings) == pytest.approx(1 / max(warmup, 1))


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd"])
@pytest.mark.parametrize("warmup", range(6))
def test_the_last_step_has_the_smallest_rate_whatever_the_warm_up(schedule: str, warmup: int) -> None:
    assert learning_rate(6, replace(EXAMPLE, schedule=schedule, warmup_steps=warmup)) == pytest.approx(0.1)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_run_shorter_than_its_warm_up_only_rises(schedule: str) -> None:
    assert rates(replace(EXAMPLE, schedule=schedule, steps=3, warmup_steps=10)) == pytest.approx([0.1, 0.2, 0.3])


@pytest.mark.parametrize(("updates", "share"), [(0, 0.0), (60, 0.5), (120, 1.0), (310, 0.505), (499, 0.01)])
def test_the_originals_rates_after_so_many_updates(updates: int, share: float) -> None:
    assert learning_rate(updates + 1, ORIGINAL) == pytest.approx(share, abs=2e-5)


def test_a_finished_run_of_the_original_goes_on_at_the_smallest_rate_instead_of_the_peak() -> None:
    assert learning_rate(501, ORIGINAL) == pytest.approx(0.01)


def test_the_original_without_warm_up_starts_at_the_peak() -> None:
    assert learning_rate(1, replace(ORIGINAL, warmup_steps=0)) == 1.0


def test_linear_falls_by_equal_steps() -> None:
    assert rates(replace(EXAMPLE, schedule="linear")) == pytest.approx([0.5, 1.0, 0.775, 0.55, 0.325, 0.1])


def test_constant_stays_at_the_peak() -> None:
    assert rates(replace(EXAMPLE, schedule="constant")) == [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]


def test_inverse_square_root_halves_in_four_times_the_warm_up() -> None:
    settings = replace(EXAMPLE, schedule="inverse_sqrt", steps=1000)
    assert [learning_rate(step, settings) for step in (2, 8, 32, 1000)] == pytest.approx([1.0, 0.5, 0.25, 0.1])


def test_wsd_is_stable_until_its_share_of_the_end() -> None:
    settings = replace(EXAMPLE, schedule="wsd", steps=10, wsd_decay=0.4)
    assert rates(settings) == pytest.approx([0.5, 1, 1, 1, 1, 1, 0.775, 0.55, 0.325, 0.1])
