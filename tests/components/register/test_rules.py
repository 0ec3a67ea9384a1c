"""The gate's rules, one by one, on answers that were made up."""

from __future__ import annotations

from typing import Any

import pytest

from components.evidence.paired import Paired, paired
from components.register.rules import Decision, Evidence, Measured, decide
from components.register.settings import GateConfig


def changed(fixed: int, broken: int, n: int = 400) -> Paired:
    same = [1.0] * (n - fixed - broken)
    return paired([0.0] * fixed + [1.0] * broken + same, [1.0] * fixed + [0.0] * broken + same)


BETTER, EQUAL, WORSE = changed(40, 10), changed(12, 12), changed(5, 20)
A_LITTLE_WORSE = changed(9, 14)


def judged(gate: dict[str, Any], more: dict[str, Any] | None = None, **tasks: Paired | str) -> Decision:
    measured = {
        task: Measured("anls", None, given) if isinstance(given, str) else Measured("anls", given)
        for task, given in tasks.items()
    }
    return decide(GateConfig(**gate), Evidence("champion version 3", measured, **(more or {})))


@pytest.mark.case("E20")
def test_equals_are_held() -> None:
    assert judged({}, main=EQUAL).verdict == "hold"


def test_a_better_model_is_promoted_with_its_figures() -> None:
    decision = judged({}, main=BETTER)
    assert decision.verdict == "promote"
    assert decision.reason.startswith(
        "better: main anls 0.9750 against 0.9000 of champion version 3, gain +0.0750 (at 95 % "
    )


def test_a_gain_below_the_least_one_is_held() -> None:
    decision = judged({"min_gain": 0.1}, main=BETTER)
    assert (decision.verdict, "too little better" in decision.reason) == ("hold", True)


def test_the_main_task_may_be_any_of_several_corrected_for_their_number() -> None:
    barely = changed(24, 12)  # p = 0.023 by itself
    assert judged({"main": ("a",)}, a=barely, b=EQUAL).verdict == "promote"
    assert judged({"main": ("a", "b")}, a=barely, b=EQUAL, c=EQUAL).verdict == "promote"
    assert judged({"main": ("a", "b", "c")}, a=barely, b=EQUAL, c=EQUAL).verdict == "hold"


def test_a_loss_that_is_shown_holds() -> None:
    decision = judged({"max_loss": 0.5}, main=BETTER, other=WORSE)
    assert (decision.verdict, decision.reason.startswith("worse: other anls")) == ("hold", True)


def test_a_loss_larger_than_allowed_holds_though_it_is_not_shown() -> None:
    assert judged({"max_loss": 0.02}, main=BETTER, other=A_LITTLE_WORSE).verdict == "promote"
    assert judged({"max_loss": 0.01}, main=BETTER, other=A_LITTLE_WORSE).verdict == "hold"


@pytest.mark.parametrize("unit", [1.0, 100.0])
def test_what_may_be_lost_counts_in_the_metric_whatever_its_scale(unit: float) -> None:
    """Percentages lose 1.25 of 100 as shares lose 0.0125 of 1."""
    before, after = [0.0] * 9 + [unit] * 391, [unit] * 9 + [0.0] * 14 + [unit] * 377
    lost = Measured("accuracy", paired(before, after, best=unit), unit=unit)
    tasks = {"main": Measured("anls", BETTER), "other": lost}
    for gate, verdict in (({"max_loss": 0.02}, "promote"), ({"max_loss": 0.01}, "hold")):
        assert decide(GateConfig(**gate), Evidence("the base model", tasks)).verdict == verdict


def test_a_proof_of_no_loss_holds_until_a_larger_one_is_excluded() -> None:
    proof = {"proof": "not_worse"}
    assert judged({**proof, "max_loss": 0.01}, main=BETTER, other=EQUAL).verdict == "hold"
    assert judged({**proof, "max_loss": 0.03}, main=BETTER, other=EQUAL).verdict == "promote"


def test_only_the_named_tasks_are_guarded() -> None:
    assert judged({"no_regression": ("other",)}, main=BETTER, other=EQUAL, third=WORSE).verdict == "promote"


def test_a_guarded_task_that_was_not_measured_leaves_it_open() -> None:
    decision = judged({}, main=BETTER, other="needs a judge")
    assert (decision.verdict, decision.reason) == ("inconclusive", "other not measured: needs a judge")


def test_a_rule_that_fails_decides_though_another_cannot_tell() -> None:
    assert judged({}, main=EQUAL, other="needs a judge").verdict == "hold"


def test_a_required_task_that_nobody_asks_leaves_it_open() -> None:
    decision = judged({"require": ("docvqa_val",)}, main=BETTER)
    assert (decision.verdict, "no evaluation of this run asks it" in decision.reason) == ("inconclusive", True)


def test_models_that_cannot_be_compared_leave_it_open() -> None:
    assert judged({}, {"refused": "other questions"}, main=BETTER).verdict == "inconclusive"


@pytest.mark.parametrize(("most", "verdict"), [(2.0, "promote"), (1.5, "hold")])
def test_a_model_may_be_too_large(most: float, verdict: str) -> None:
    assert judged({"max_megabytes": most}, {"model_bytes": 2_000_000}, main=BETTER).verdict == verdict


@pytest.mark.parametrize(("seconds", "verdict"), [(0.2, "promote"), (0.3, "hold"), (None, "inconclusive")])
def test_a_model_may_be_too_slow(seconds: float | None, verdict: str) -> None:
    more = {"seconds_per_answer": seconds}
    assert judged({"max_seconds_per_answer": 0.2}, more, main=BETTER).verdict == verdict


def test_an_early_look_must_be_surer_than_the_last() -> None:
    barely = {"main": Measured("anls", changed(24, 12))}
    gate, evidence = GateConfig(), Evidence("the base model", barely)
    assert [decide(gate, evidence, look, 5).verdict for look in (1, 2, 5)] == ["hold", "hold", "promote"]
