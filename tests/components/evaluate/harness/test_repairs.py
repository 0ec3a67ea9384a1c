"""What is mended of lmms-eval, each by a stand-in for the faulty function; that the real ones are reached, suites_run shows."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

from components.errors import UserError
from components.evaluate.benchmarks.judge import JudgeError
from components.evaluate.harness.repairs import RAW, keeping_likelihoods, mended_config
from components.evaluate.harness.task_repairs import (
    UNJUDGED,
    WithoutExit,
    activitynetqa_judged,
    answering_something,
    mended,
    only_judged,
    tempcompass_verdict,
)
from tests.components.evaluate.benchmarks.judge_server import judge_server

QUESTION = {"question": "what", "answer": "dog"}


def of_a_task(source: str, **names: Any) -> FunctionType:
    """The last function that a task's file defines, with what the file imports as `names`."""
    namespace: dict[str, Any] = {"__name__": "utils", **names}
    exec(source, namespace)
    found = [value for value in namespace.values() if isinstance(value, FunctionType)][-1]
    return found


def test_an_empty_metric_is_left_out() -> None:
    load = mended_config(lambda: {"metric_list": [None, {"metric": "a"}]})
    assert load() == {"metric_list": [{"metric": "a"}]}


def test_a_list_on_github_is_taken_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    load = mended_config(lambda: {"dataset_kwargs": {"data_files": {"test": f"{RAW}o/n/main/data/q.jsonl"}}})
    assert load()["dataset_kwargs"]["data_files"]["test"].startswith(RAW)  # it is not there
    (tmp_path / "o/n/data").mkdir(parents=True)
    (tmp_path / "o/n/data/q.jsonl").touch()
    assert load()["dataset_kwargs"]["data_files"]["test"] == str(tmp_path / "o/n/data/q.jsonl")


def test_a_likelihood_stays_a_pair() -> None:
    unwrap = keeping_likelihoods(lambda output: (str(output), None))
    assert unwrap((0.5, True)) == ((0.5, True), None)
    assert unwrap([0.5, True]) == ((0.5, True), None)  # as lmms-eval's cache gives it
    assert unwrap("text") == ("text", None)


def test_a_task_that_leaves_the_process_raises_instead() -> None:
    show = mended(of_a_task("def doc_to_visual(doc):\n    sys.exit('video v.mp4')", sys=sys), Path("videomme"))
    with pytest.raises(UserError, match=r"video v\.mp4"):
        show({})
    assert WithoutExit().version == sys.version


def test_a_video_that_is_not_there_is_not_asked_about(tmp_path: Path) -> None:
    shown = of_a_task("def doc_to_visual(doc, kwargs=None):\n    return doc['shown']")
    show = mended(shown, Path("tomato"))
    (tmp_path / "v.mp4").touch()
    assert show({"shown": [str(tmp_path / "v.mp4")]}) == [str(tmp_path / "v.mp4")]
    for item in (f"{tmp_path}/w.mp4", [f"{tmp_path}/w.mp4"]):
        with pytest.raises(UserError, match=r"w\.mp4 of tomato does not exist"):
            show({"shown": item})
    with pytest.raises(UserError, match=r"the video a\.mp4 of tomato does not exist"):
        show({"shown": [], "video_path": "a.mp4"})
    assert mended(shown, Path("mmmu"))({"shown": []}) == []  # a question may show nothing


ACTIVITY = """
def get_eval(question, answer, pred, most):
    return {"good": ("{'pred': 'yes', 'score': 4}", "m"), "odd": ("hm", "m"), "gone": ("", "")}[pred]
def parse_score(review):
    return ["yes", 4] if review.startswith("{") else None
def activitynetqa_process_results(doc, result):
    pass
"""


def test_a_verdict_that_cannot_be_read_is_neither_yes_nor_no() -> None:
    score = activitynetqa_judged(of_a_task(ACTIVITY))
    assert score(QUESTION, ["good"])["gpt_eval_accuracy"] == {
        **QUESTION,
        "pred": "good",
        "Correctness": "yes",
        "score": 4,
    }
    assert score(QUESTION, ["odd"])["gpt_eval_accuracy"] == {**QUESTION, "pred": "odd", "Correctness": UNJUDGED}
    with pytest.raises(JudgeError, match="gave no answer"):
        score(QUESTION, ["gone"])


def test_only_judged_answers_are_averaged() -> None:
    mean = only_judged("rating")(lambda results, args: sum(each["rating"] for each in results) / len(results))
    assert mean([{"rating": 1}, {"rating": None}, {"rating": 0}], None) == 0.5
    assert mean([{"rating": None}], None) is None


def test_tempcompass_asks_the_judge_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with judge_server({"one": "Correct", "two": "Incorrect.", "three": "Hm"}) as url:
        monkeypatch.setenv("OPENAI_API_BASE", f"{url}/v1")
        assert [tempcompass_verdict(text)[1] for text in ("one", "two", "three")] == [1, 0, None]


def test_an_empty_answer_is_something() -> None:
    assert answering_something(lambda doc, results: results)({}, ["", "a"]) == [" ", "a"]
