"""What the gate's rules can find with the questions that there are, before any is asked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist

from components.evidence.power import power, smallest_gain
from components.register.settings import GateConfig

CHANCE = 0.8  # with which a gain is called findable


@dataclass(frozen=True)
class Foreseen:
    """A sentence about a rule; `warns` where equal models pass it in less than half of all draws, or nobody can."""

    text: str
    warns: bool = False


def foresee(gate: GateConfig, questions: Mapping[str, int], changed: float) -> list[Foreseen]:
    """What each rule can find; `questions` gives their number by task, the main one first.

    `changed` is the share of the answers whose score differs between two models: of an earlier comparison, or a guess.
    Worked example: 400 questions, 15 % of which change: a true gain of 0.048 is found in 80 of 100 draws.
    """
    main = gate.main or tuple(questions)[:1]
    guarded = [task for task in (questions if gate.no_regression == "all" else gate.no_regression) if task not in main]
    level = 1 - (1 - gate.confidence) / max(1, len(main))
    found = [_better(gate, task, questions[task], changed, level) for task in main if task in questions]
    return [*found, *_guards(gate, {task: questions[task] for task in guarded if task in questions}, changed)]


def _better(gate: GateConfig, task: str, n: int, changed: float, level: float) -> Foreseen:
    least = smallest_gain(n, changed, level, CHANCE)
    share = f"{100 * changed:.3g} % of the answers changed"
    if least is None:
        return Foreseen(f"{task}: no gain can be shown with {n} questions; raise convert.test_fraction", warns=True)
    text = f"{task}: with {n} questions a true gain of {least:.3f} is found in {100 * CHANCE:.0f} of 100 runs ({share})"
    if gate.min_gain > least:
        text += f"; one of gate.min_gain {gate.min_gain:g} itself passes in about half of them"
    return Foreseen(text)


def _guards(gate: GateConfig, questions: Mapping[str, int], changed: float) -> Iterator[Foreseen]:
    passes = {task: _equal_passes(gate, n, changed) for task, n in questions.items()}
    if not passes:
        return
    together = math.prod(passes.values())
    worst = min(passes, key=lambda task: passes[task])
    yield Foreseen(
        f"no regression: equal models pass the {len(passes)} guarded tasks in {100 * together:.0f} of 100 runs"
        + (f", {worst} with {questions[worst]} questions least often" if len(passes) > 1 else "")
        + (f"; raise gate.max_loss above {gate.max_loss:g}, or ask more questions" if together < 0.5 else ""),
        warns=together < 0.5,
    )


def _equal_passes(gate: GateConfig, n: int, changed: float) -> float:
    """How often a model that is neither better nor worse passes the guard of one task."""
    if gate.proof == "not_worse":
        return power(gate.max_loss, n, changed, gate.confidence) if gate.max_loss > 0 else 1 - gate.confidence
    shown = 1 - gate.confidence
    too_low = NormalDist().cdf(-gate.max_loss * math.sqrt(n / changed))
    return 1 - max(shown, too_low)
