"""The metric that typical sets get."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.evaluate.metrics.fitting import fitting, shows_options
from components.evaluate.metrics.known import METRICS

OPTIONS = "Which organ is shown?\nA. Liver\nB. Lung\nC. Heart"
SENTENCES = ["A dog runs across the green field.", "Two cats are sleeping on a sofa.", "A man rides a wave at sea."]


def metric_of(references: list[str] | list[tuple[str, ...]], question: str = "What is it?") -> str:
    sets = [(one,) if isinstance(one, str) else one for one in references]
    fit = fitting([question] * len(sets), sets)
    assert fit.metric in METRICS and fit.why and "\n" not in fit.why
    assert fit == fitting([question] * len(sets), sets)
    return fit.metric


@pytest.mark.parametrize(
    ("references", "metric"),
    [
        (["yes", "no", "no", "yes", "yes"], "exact_match"),
        (["cat", "dog", "bird"] * 10, "exact_match"),
        ([str(digit) for digit in range(10)], "exact_match"),
        ([str(digit) for digit in range(10)] * 20, "exact_match"),
        (["12", "15", "11", "12", "15", "11"], "exact_match"),
        (["12.5", "310", "42%", "Germany", "7.1", "2018"], "relaxed_accuracy"),
        ([str(3.7 * row) for row in range(60)], "relaxed_accuracy"),
        (["left lung", "pneumonia", "X-ray", "two masses"], "exact_match"),
        (["[040,482,112,576]", "[1,2,3,4], [5,6,7,8]"], "iou_box"),
        (["a man [040,482,112,576]", "[1,2,3,4]"], "exact_match"),
        (["[12.5, 20.0]", "3 - 4.5 seconds", "from 1 to 2 s"], "iou_time"),
        ([("cat",) * 7 + ("kitten",) * 3, ("2",) * 10], "vqa_accuracy"),
        ([("12 May 1990", "12 May, 1990"), ("ITC Ltd.", "ITC")], "exact_match"),
        (["A", "B", "C", "A"], "exact_match"),
    ],
)
def test_typical_sets(references: list[str] | list[tuple[str, ...]], metric: str) -> None:
    assert metric_of(references) == metric


@pytest.mark.parametrize("references", [["A", "B", "C"], ["(A)", "b."]])
def test_letters_are_a_choice_where_the_question_shows_options(references: list[str]) -> None:
    assert metric_of(references, OPTIONS) == "choice"


def test_options_are_seen_in_a_column_and_in_a_row() -> None:
    assert shows_options(OPTIONS) and shows_options("Which? (A) cat (B) dog") and shows_options("a) cat\nb) dog")
    assert not shows_options("Is vitamin A. or what?") and not shows_options("What is it?")


def test_sentences_get_cider_of_the_words_that_the_machine_can_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert metric_of(SENTENCES) == metric_of([tuple(SENTENCES)] * 5) == "cider_simple"
    java = tmp_path / "java"
    java.touch()
    java.chmod(0o755)
    assert metric_of(SENTENCES) == metric_of([tuple(SENTENCES)] * 5) == "cider"


def test_a_set_that_cannot_be_judged_is_refused() -> None:
    with pytest.raises(ValueError, match="question 1 has no reference"):
        fitting(["a", "b"], [("x",), ()])
    with pytest.raises(ValueError, match="1 questions and 2 sets of references"):
        fitting(["a"], [("x",), ("y",)])
    with pytest.raises(ValueError, match="0 questions"):
        fitting([], [])
