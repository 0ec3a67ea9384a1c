"""The gate's rules: what each says of a candidate and its rival, and what they decide together.

A rule passes, fails, or cannot tell. One that fails holds the candidate back; where none fails but one cannot tell, the gate
is inconclusive; else the candidate is promoted. Only the paired answers of both models to the same questions count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from components.evidence.holm import holm
from components.evidence.looks import levels
from components.evidence.paired import Paired
from components.register.settings import GateConfig

Verdict = Literal["promote", "hold", "inconclusive"]
Outcome = Literal["passed", "failed", "cannot tell"]
ROUNDING = 1e-9
MEGABYTE = 1e6


@dataclass(frozen=True)
class Measured:
    """What both models did on a task; `paired` is None, with the reason, where there is nothing to compare.

    `unit` is what 1 of the metric itself is on the scale of the scores: 100 where shares are told as percentages.
    """

    metric: str
    paired: Paired | None
    reason: str = ""
    unit: float = 1.0


@dataclass(frozen=True)
class Evidence:
    """What the gate knows: the rival's name for people, tasks by name (the first is the main one unless the gate says another).

    `refused` is why the two models cannot be compared at all. `model_bytes` and `seconds_per_answer` are the candidate's.
    """

    rival: str
    tasks: Mapping[str, Measured]
    refused: str | None = None
    model_bytes: int | None = None
    seconds_per_answer: float | None = None


@dataclass(frozen=True)
class Rule:
    """One rule with its figures, in a sentence."""

    name: str
    outcome: Outcome
    text: str

    def __str__(self) -> str:
        return f"{self.name} {self.outcome}: {self.text}"


@dataclass(frozen=True)
class Decision:
    """What the rules decide together."""

    verdict: Verdict
    rules: tuple[Rule, ...] = field(default=())

    @property
    def reason(self) -> str:
        """The rules that decided, in one line: those that failed, else those that cannot tell, else all."""
        for outcome in ("failed", "cannot tell"):
            if said := [rule.text for rule in self.rules if rule.outcome == outcome]:
                return "; ".join(said)
        return "; ".join(rule.text for rule in self.rules)


def decide(gate: GateConfig, evidence: Evidence, look: int = 1, looks: int = 1) -> Decision:
    """The decision at the end of an evaluation, or at one of its looks, 1 to `looks`, whose number is stated beforehand."""
    rules = tuple(_rules(gate, evidence, levels(looks, gate.confidence)[look - 1]))
    outcomes = {rule.outcome for rule in rules}
    if "failed" in outcomes:
        return Decision("hold", rules)
    return Decision("inconclusive" if "cannot tell" in outcomes else "promote", rules)


def _rules(gate: GateConfig, evidence: Evidence, level: float) -> Iterator[Rule]:
    if evidence.refused:
        yield Rule("same questions", "cannot tell", evidence.refused)
        return
    main = main_tasks(gate, evidence)
    yield _better(gate, evidence, main, level)
    guarded = guarded_tasks(gate, evidence, main)
    yield from (_not_proven_worse if gate.proof == "not_shown_worse" else _proven_not_worse)(gate, evidence, guarded)
    for task in gate.require:
        if task not in {*main, *guarded} and (unknown := _unknown("required", task, evidence)):
            yield unknown
    yield from _caps(gate, evidence)


def main_tasks(gate: GateConfig, evidence: Evidence) -> tuple[str, ...]:
    """The tasks of which one must be better."""
    return gate.main or tuple(evidence.tasks)[:1]


def guarded_tasks(gate: GateConfig, evidence: Evidence, main: Sequence[str]) -> tuple[str, ...]:
    """The tasks that must not be worse."""
    asked = tuple(evidence.tasks) if gate.no_regression == "all" else gate.no_regression
    return tuple(task for task in asked if task not in main)


def _unknown(name: str, task: str, evidence: Evidence) -> Rule | None:
    """A rule that cannot tell because a task was not measured of both models; None where it was."""
    measured = evidence.tasks.get(task)
    if measured is not None and measured.paired is not None:
        return None
    reason = measured.reason if measured is not None else "no evaluation of this run asks it"
    return Rule(name, "cannot tell", f"{task} not measured: {reason}")


def _paired(evidence: Evidence, tasks: Sequence[str]) -> dict[str, Paired]:
    found = {task: evidence.tasks[task].paired for task in tasks if task in evidence.tasks}
    return {task: paired for task, paired in found.items() if paired is not None}


def _gain(task: str, evidence: Evidence) -> float:
    """The gain of a task that was measured, in units of the metric itself, as `min_gain` and `max_loss` are."""
    measured = evidence.tasks[task]
    assert measured.paired is not None
    return measured.paired.gain / measured.unit


def _better(gate: GateConfig, evidence: Evidence, main: Sequence[str], level: float) -> Rule:
    """At least one main task is better: its lower bound above 0, corrected for their number, its gain `min_gain` or more."""
    name = "better"
    for task in main:
        if unknown := _unknown(name, task, evidence):
            return unknown
    paired = _paired(evidence, main)
    adjusted = holm({task: each.p_better() for task, each in paired.items()})
    shown = [task for task in main if adjusted[task] < 1 - level and paired[task].bounds(level)[0] > 0]
    passed = [task for task in shown if _gain(task, evidence) >= gate.min_gain - ROUNDING]
    told = (passed or shown or sorted(main, key=lambda task: adjusted[task]))[0]
    among = f", one of {len(main)} by Holm" if len(main) > 1 else ""
    text = f"{_figures(told, evidence, level)}{among}"
    if passed:
        return Rule(name, "passed", f"better: {text}")
    if shown:
        return Rule(name, "failed", f"too little better: {text}, gate.min_gain {gate.min_gain:g}")
    return Rule(name, "failed", f"not shown to be better: {text}")


def _not_proven_worse(gate: GateConfig, evidence: Evidence, tasks: Sequence[str]) -> Iterator[Rule]:
    """No guarded task is shown to be worse, corrected for their number, nor lost more than `max_loss`."""
    paired = _paired(evidence, tasks)
    adjusted = holm({task: each.p_worse() for task, each in paired.items()})

    def fails(task: str, each: Paired) -> bool:
        return adjusted[task] < 1 - gate.confidence or _gain(task, evidence) < -gate.max_loss - ROUNDING

    yield from _guarded(gate, evidence, tasks, fails, "not shown to be worse", "worse")


def _proven_not_worse(gate: GateConfig, evidence: Evidence, tasks: Sequence[str]) -> Iterator[Rule]:
    """Every guarded task's lower bound is above `-max_loss`."""

    def fails(task: str, each: Paired) -> bool:
        return each.bounds(gate.confidence)[0] / evidence.tasks[task].unit <= -gate.max_loss

    yield from _guarded(gate, evidence, tasks, fails, "not worse", "not proven to be no worse")


def _guarded(
    gate: GateConfig,
    evidence: Evidence,
    tasks: Sequence[str],
    fails: Callable[[str, Paired], bool],
    good: str,
    bad: str,
) -> Iterator[Rule]:
    paired = _paired(evidence, tasks)
    for task in tasks:
        if unknown := _unknown("no regression", task, evidence):
            yield unknown
            continue
        failed = fails(task, paired[task])
        text = f"{_figures(task, evidence, gate.confidence)}, gate.max_loss {gate.max_loss:g}"
        yield Rule("no regression", "failed" if failed else "passed", f"{bad if failed else good}: {text}")


def _caps(gate: GateConfig, evidence: Evidence) -> Iterator[Rule]:
    if gate.max_megabytes is not None and evidence.model_bytes is not None:
        size = evidence.model_bytes / MEGABYTE
        passed = size <= gate.max_megabytes
        yield Rule("size", "passed" if passed else "failed", f"{size:,.1f} MB of {gate.max_megabytes:,.1f} allowed")
    if gate.max_seconds_per_answer is not None:
        yield _speed(gate.max_seconds_per_answer, evidence.seconds_per_answer)


def _speed(most: float, seconds: float | None) -> Rule:
    if seconds is None:
        return Rule("speed", "cannot tell", "how long an answer takes was not measured")
    return Rule("speed", "passed" if seconds <= most else "failed", f"{seconds:.3g} s an answer of {most:g} allowed")


def _figures(task: str, evidence: Evidence, level: float) -> str:
    """`digits exact_match 0.9660 against 0.9000 of champion version 3, gain +0.0660 (at 95 % more than +0.0412) on 411`."""
    measured = evidence.tasks[task]
    paired = measured.paired
    assert paired is not None
    groups = f" in {paired.clusters} groups" if paired.clusters != paired.n else ""
    low, high = paired.bounds(level)
    return (
        f"{task} {measured.metric} {paired.after:.4f} against {paired.before:.4f} of {evidence.rival}, gain "
        f"{paired.gain:+.4f} (at {100 * level:.4g} % above {low:+.4f}, below {high:+.4f}) on {paired.n} questions{groups}"
    )
