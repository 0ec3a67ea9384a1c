"""What a metric is: from answers and their references to one score a question, and one value of them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import fsum


@dataclass(frozen=True)
class Answered:
    """A question's answer and its references: any one of them is a right answer."""

    answer: str
    references: tuple[str, ...]


@dataclass(frozen=True)
class Metric:
    """A row of the table of metrics.

    `meaning` is one line for a report. `scores` gives one score a question, in order, from 0 to `best`; higher is better.
    The value of a set is their mean, or what `corpus` gives where a metric is defined on the whole set. `java` metrics run
    Java programs.
    """

    name: str
    meaning: str
    scores: Callable[[Sequence[Answered]], list[float]]
    best: float = 1.0
    corpus: Callable[[Sequence[Answered]], float] | None = None
    java: bool = False

    def value(self, answered: Sequence[Answered]) -> float:
        """The set's one number. A set without a question has none: ValueError."""
        if not answered:
            raise ValueError(f"{self.name} of no questions")
        if self.corpus:
            return self.corpus(answered)
        return fsum(self.scores(answered)) / len(answered)


def check_references(references: Sequence[tuple[str, ...]]) -> None:
    """ValueError with the position (from 0) of the first question that has no reference."""
    for position, of_question in enumerate(references):
        if not of_question:
            raise ValueError(f"question {position} has no reference")


def best_of_references(score: Callable[[str, str], float]) -> Callable[[Sequence[Answered]], list[float]]:
    """`Metric.scores` from a score of an answer and one reference: the best over the references; an empty answer has 0."""

    def scores(answered: Sequence[Answered]) -> list[float]:
        check_references([one.references for one in answered])
        return [
            max(score(one.answer, reference) for reference in one.references) if one.answer.strip() else 0.0
            for one in answered
        ]

    return scores
