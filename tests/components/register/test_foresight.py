"""What a gate can find is said before: against what the gate itself does with drawn answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from components.evidence.paired import paired
from components.register.foresight import foresee
from components.register.rules import Evidence, Measured, decide
from components.register.settings import GateConfig


def texts(gate: dict[str, Any], questions: dict[str, int], changed: float = 0.15) -> list[tuple[str, bool]]:
    return [(each.text, each.warns) for each in foresee(GateConfig(**gate), questions, changed)]


def passed(gate: GateConfig, n: int, changed: float, draws: int = 600) -> float:
    """How often the gate passes equal models on a guarded task, the main task being better."""
    rng = np.random.default_rng(0)
    better = Measured("accuracy", paired([0.0] * 40 + [1.0] * 60, [1.0] * 100))
    count = 0
    for _ in range(draws):
        fixed, broken, same = rng.multinomial(n, [changed / 2, changed / 2, 1 - changed])
        before = [0.0] * fixed + [1.0] * (broken + same)
        after = [1.0] * fixed + [0.0] * broken + [1.0] * same
        tasks = {"main": better, "other": Measured("accuracy", paired(before, after))}
        count += decide(gate, Evidence("the base model", tasks)).verdict == "promote"
    return count / draws


def test_the_smallest_gain_is_named_with_its_chance() -> None:
    ((text, warns),) = texts({}, {"digits": 400})
    assert text == (
        "digits: with 400 questions a true gain of 0.048 is found in 80 of 100 runs (15 % of the answers changed)"
    )
    assert not warns


def test_two_questions_are_warned_of() -> None:
    ((text, warns),) = texts({}, {"digits": 2})
    assert warns and "no gain can be shown with 2 questions" in text


def test_a_least_gain_above_what_is_found_passes_in_half_of_the_runs() -> None:
    ((text, _),) = texts({"min_gain": 0.1}, {"digits": 400})
    assert text.endswith("one of gate.min_gain 0.1 itself passes in about half of them")


@pytest.mark.parametrize("gate", [{"proof": "not_worse", "max_loss": 0.02}, {"max_loss": 0.01}, {"max_loss": 0.05}])
def test_how_often_equal_models_pass_a_guard_is_what_the_gate_does(gate: dict[str, Any]) -> None:
    *_, (text, warns) = texts({**gate, "main": ("main",)}, {"main": 100, "other": 400})
    share = passed(GateConfig(**gate, main=("main",)), 400, 0.15)
    assert int(text.split(" in ")[1].split()[0]) / 100 == pytest.approx(share, abs=0.05)
    assert warns == (share < 0.5)


def test_many_guards_together_are_named_by_the_weakest() -> None:
    *_, (text, _) = texts({"main": ("a",)}, {"a": 400, "b": 100, "c": 900})
    assert "the 2 guarded tasks" in text and "b with 100 questions least often" in text
