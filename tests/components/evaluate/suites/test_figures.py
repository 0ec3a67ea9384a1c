"""A column's figure out of lmms-eval's results, each worked out by hand; what is no figure is said, never taken for 0."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from components.evaluate.suites.figures import Figure, figure
from components.evaluate.suites.questions import score_of
from components.evaluate.suites.suite import Column, PerQuestion


def column(**changes: Any) -> Column:
    values: dict[str, Any] = {"title": "A", "tasks": ["a"], "split": "test", "setting": "accuracy", "metric": "acc"}
    return Column.model_validate({**values, **changes})


def outcome(results: dict[str, Any], n: int = 4) -> dict[str, Any]:
    """What lmms-eval gives for tasks of `n` questions each."""
    return {"results": results, "n-samples": {task: {"original": 9, "effective": n} for task in results}}


@pytest.mark.parametrize(
    ("changes", "results", "value"),
    [
        ({"scale": 100}, {"a": {"acc,none": 0.25, "acc_stderr,none": "N/A", "alias": "a"}}, 25.0),
        ({"metric": "em,flexible-extract"}, {"a": {"em,flexible-extract": np.float64(0.5)}}, 0.5),
        ({"tasks": ["a", "b", "c"]}, {"a": {"acc,none": 1}, "b": {"acc,none": 0.5}, "c": {"acc,none": 0}}, 0.5),
        ({"metric": ["p", "c"]}, {"a": {"p,none": 1400.0, "c,none": 300.0}}, 1700.0),
        ({"scale": 1000, "divided_by": 1000}, {"a": {"acc,none": 0.003}}, 750.0),  # 3 of 4 questions
        ({"part": 1}, {"a": {"acc,none": (80.0, 40.0)}}, 40.0),
        ({"part": "mIOU", "scale": 100}, {"a": {"acc,none": {"mIOU": 0.125, "num_instances": 4}}}, 12.5),
    ],
)
def test_a_figure(changes: dict[str, Any], results: dict[str, Any], value: float) -> None:
    found = figure(column(**changes), outcome(results))
    assert found.value == pytest.approx(value)
    assert (found.reason, found.n) == (None, 4 * len(results))


@pytest.mark.parametrize(
    ("changes", "results", "reason"),
    [
        ({}, {}, "lmms-eval gave no results for a"),
        ({}, {"a": {"alias": "a", "acc_stderr,none": 0.1}}, "lmms-eval's results for a hold no acc, but nothing"),
        ({}, {"a": {"em,none": 1.0}}, "lmms-eval's results for a hold no acc, but em,none"),
        ({}, {"a": {"acc,none": None}}, "acc of a is None, which is no figure"),
        ({}, {"a": {"acc,none": []}}, "acc of a is [], which is no figure"),
        ({}, {"a": {"acc,none": "N/A"}}, "acc of a is 'N/A', which is no figure"),
        ({}, {"a": {"acc,none": float("nan")}}, "acc of a is nan, which is no figure"),
        ({"part": "x"}, {"a": {"acc,none": {"y": 1.0}}}, "acc of a is {'y': 1.0}, which holds no x"),
        ({"part": 2}, {"a": {"acc,none": (1.0, 0.5)}}, "acc of a is (1.0, 0.5), which holds no 2"),
        ({"tasks": ["a", "b"]}, {"a": {"acc,none": 1.0}}, "lmms-eval gave no results for b"),
        ({"not_measured": "labels are with a server"}, {"a": {"acc,none": 1.0}}, "labels are with a server"),
    ],
)
def test_no_figure_has_its_reason_and_is_not_0(changes: dict[str, Any], results: dict[str, Any], reason: str) -> None:
    found = figure(column(**changes), outcome(results))
    assert (found.value, found.reason) == (None, reason)


def test_a_task_that_failed_gives_its_reason() -> None:
    assert figure(column(), outcome({}), {"a": "no video v.mp4"}) == Figure(None, "a did not run: no video v.mp4", 0)


def test_a_sum_of_unknown_many_questions_is_no_figure() -> None:
    found = figure(column(divided_by=1000), {"results": {"a": {"acc,none": 0.003}}})
    assert found == Figure(None, "how many questions of a were asked is not known, and its metric is a sum", 0)


def samples(*values: Any, group: str = "abc") -> list[dict[str, Any]]:
    return [
        {"doc_id": number, "doc": {"video": letter}, "acc": value}
        for number, (letter, value) in enumerate(zip(group, values, strict=True))
    ]


def test_only_questions_that_were_measured_count() -> None:
    asked = {"results": {"a": {"acc,none": 0.5}}, "samples": {"a": samples(1.0, None, 0.0)}}
    measured = column(per_question={"key": "acc"}, cluster="video")
    assert figure(measured, asked) == Figure(0.5, None, 2)


@pytest.mark.parametrize(
    ("where", "sample", "score"),
    [
        ({"key": "m.score"}, {"m": {"score": np.float64(0.25)}}, 0.25),
        ({"key": ["p.score", "c.score"]}, {"c": {"score": 1}}, 1.0),
        ({"key": "m"}, {"m": True}, 1.0),
        ({"key": "m", "how": "equal", "truth": "t"}, {"m": "b ", "t": "B"}, 1.0),
        ({"key": "m", "how": "equal", "truth": "t"}, {"m": 1, "t": "2"}, 0.0),
        ({"key": "m", "how": "first_letter", "truth": "t"}, {"m": "a. cat", "t": "A"}, 1.0),
        ({"key": "m", "how": "yes_no"}, {"m": "no"}, 0.0),
        ({"key": "m", "how": "yes_no"}, {"m": "unjudged"}, None),
        ({"key": "m.score"}, {"m": 1.0}, None),
    ],
)
def test_a_question_s_score(where: dict[str, Any], sample: dict[str, Any], score: float | None) -> None:
    assert score_of(sample, PerQuestion.model_validate(where)) == score
