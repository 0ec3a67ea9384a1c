"""The table of metrics: values of sets, references that are missing, and bounds."""

from __future__ import annotations

import math

import pytest

from components.errors import UserError
from components.evaluate.metrics.known import METRICS, without_java
from components.evaluate.metrics.metric import Answered, Metric
from tests.components.evaluate.metrics.pairs import DESCRIBED, SHORT, SINGLE

NO_JAVA = [name for name, metric in METRICS.items() if not metric.java]
BOXES = [
    Answered("[0,0,10,10]", ("[5,0,15,10]",)),
    Answered("[1,2,3]", ("[1,2,3,4]",)),
    Answered("1 - 2 seconds", ("[1.5, 3]",)),
]


def test_the_value_is_the_mean_unless_the_metric_is_one_of_the_whole_set() -> None:
    answered = [Answered("a", ("a",)), Answered("b", ("a",))]
    assert METRICS["exact_match"].value(answered) == 0.5
    whole = Metric("whole", "", METRICS["exact_match"].scores, corpus=lambda answered: 0.25)
    assert whole.value(answered) == 0.25
    with pytest.raises(ValueError, match="exact_match of no questions"):
        METRICS["exact_match"].value([])


@pytest.mark.parametrize("name", NO_JAVA)
def test_a_question_without_references_is_named(name: str) -> None:
    with pytest.raises(ValueError, match="question 1 has no reference"):
        METRICS[name].scores([Answered("a", ("a",)), Answered("a", ())])


@pytest.mark.parametrize("name", NO_JAVA)
def test_scores_lie_within_bounds_and_an_empty_answer_has_none(name: str) -> None:
    metric = METRICS[name]
    for answered in (SHORT, SINGLE, DESCRIBED, BOXES):
        scores = metric.scores(answered)
        assert len(scores) == len(answered)
        assert all(type(score) is float and 0 <= score <= metric.best + 1e-9 for score in scores)
        assert not [score for one, score in zip(answered, scores, strict=True) if score and not one.answer.strip()]
        assert 0 <= metric.value(answered) <= metric.best


@pytest.mark.parametrize("name", NO_JAVA)
@pytest.mark.parametrize("references", [("",), ("a dog",), ("", "...")])
@pytest.mark.parametrize("answer", ["", " \n", "..."])
def test_one_question_without_words_is_a_number(name: str, answer: str, references: tuple[str, ...]) -> None:
    score = METRICS[name].value([Answered(answer, references)])
    assert math.isfinite(score) and (score == 0.0 or answer.strip())


def test_every_row_of_the_table_has_its_name_and_one_line() -> None:
    for name, metric in METRICS.items():
        assert metric.name == name and metric.meaning and "\n" not in metric.meaning


def test_a_right_answer_is_one_that_equals_any_reference() -> None:
    assert METRICS["exact_match"].scores([Answered("Dog.", ("cat", "dog"))]) == [1.0]


def test_without_java_a_caption_metric_has_another_name() -> None:
    assert [without_java(name) for name in ("cider", "bleu", "rouge_l", "anls")] == [
        "cider_simple",
        "bleu_simple",
        "rouge_l_simple",
        "anls",
    ]
    with pytest.raises(
        UserError, match=r"meteor needs Java: install .*default-jre-headless, or choose one of cider_simple"
    ):
        without_java("meteor")
    with pytest.raises(UserError, match="no metric is called bleurt; there are exact_match"):
        without_java("bleurt")
