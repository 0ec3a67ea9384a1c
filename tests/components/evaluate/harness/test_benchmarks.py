"""A benchmark's questions as rows: each with its score, or those together that are right together."""

from __future__ import annotations

from typing import Any

from components.evaluate.harness.benchmarks import rows_of
from components.evaluate.suites.plain import plain_column, with_its_metric
from components.evaluate.suites.suite import Column


def column(**changes: Any) -> Column:
    common = {"title": "A", "tasks": ("a",), "split": "test", "setting": "accuracy", "metric": "acc"}
    return Column.model_validate({**common, **changes})


def samples(*values: Any, videos: str) -> dict[str, Any]:
    rows = [
        {
            "doc_id": number,
            "doc": {"video": video},
            "target": "B",
            "arguments": [{"until": []}, f"Question {number}?", 7],
            "filtered_resps": ["A"],
            "acc": value,
        }
        for number, (video, value) in enumerate(zip(videos, values, strict=True))
    ]
    return {"samples": {"a": rows[::-1]}, "results": {"a": {"alias": "a", "acc_stderr,none": 0.1, "acc,none": 0.5}}}


def test_each_question_has_its_score_and_what_it_shares_media_with() -> None:
    asked = column(per_question={"key": "acc"}, cluster="video")
    first, second, third = rows_of(asked, "a", samples(1.0, None, 0.0, videos="vvw"))
    assert [row["score"] for row in (first, second, third)] == [1.0, None, 0.0]
    assert [row["cluster"] for row in (first, second, third)] == ["a/v", "a/v", "a/w"]
    assert (first["id"], first["question"], first["target"], first["answer"]) == ("a/0", "Question 0?", "B", "A")


def test_questions_that_count_together_are_one_row_that_is_right_when_all_are() -> None:
    asked = column(per_question={"key": "acc", "all_of": "video"})
    rows = rows_of(asked, "a", samples(1.0, 0.0, 1.0, videos="vvw"))
    assert [(row["id"], row["score"]) for row in rows] == [("a/v", 0.0), ("a/w", 1.0)]
    assert rows[0]["question"] == "Question 0?\nQuestion 1?"


def test_a_group_of_which_one_was_not_measured_is_not_measured() -> None:
    asked = column(per_question={"key": "acc", "all_of": "video"})
    assert rows_of(asked, "a", samples(1.0, None, videos="vv"))[0]["score"] is None


def test_a_single_task_has_its_first_number_as_its_metric() -> None:
    found = with_its_metric(plain_column("a"), samples(1.0, 0.0, videos="vw"))
    assert found.metric == "acc" and found.per_question is not None and found.per_question.key == "acc"


def test_a_single_task_that_did_not_run_stays_as_it_was() -> None:
    assert with_its_metric(plain_column("a"), {}) == plain_column("a")
