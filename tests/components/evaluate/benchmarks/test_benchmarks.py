"""Our benchmarks' parts by themselves: which choice an answer names, files as published, media, AutoDQ and its judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.errors import UserError
from components.evaluate.benchmarks.cgbench_clue.cgbench_clue import merged, shares
from components.evaluate.benchmarks.choices import choice_question, chosen, yes_or_no
from components.evaluate.benchmarks.dream1k.autodq import Comparison, Unreadable, compared, entailed
from components.evaluate.benchmarks.dream1k.dream1k import f1_of_means
from components.evaluate.benchmarks.how2qa.how2qa import COLUMNS, document_of
from components.evaluate.benchmarks.judge import Judge, JudgeError, required_judge
from components.evaluate.benchmarks.media import media_file
from components.evaluate.benchmarks.published import csv_rows, json_rows
from components.evaluate.benchmarks.star import star
from components.evaluate.benchmarks.videohallucer.videohallucer import pairs_right
from tests.components.evaluate.benchmarks.judge_server import judge_server

OPTIONS = ["a cat", "a dog", "an eel"]


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("(c)", "C"),
        ("b. a dog", "B"),
        ("C a nice eel", "C"),
        ("The answer is (B).", "B"),
        ("Not (A) but (B)", "B"),
        ("an eel", "C"),
        ("A dog.", "B"),  # a word, not a letter
        ("The answer is a dog", None),
        ("D", None),
        ("I see a cat", None),
        ("", None),
    ],
)
def test_the_choice_that_an_answer_names(answer: str, letter: str | None) -> None:
    assert chosen(answer, OPTIONS) == letter


@pytest.mark.parametrize(
    ("answer", "said"),
    [("Yes, it is", True), ("**No**.", False), ("false", False), ("Nothing", None), ("It is. Yes", None), ("", None)],
)
def test_an_answer_of_yes_or_no_is_its_first_word(answer: str, said: bool | None) -> None:
    assert yes_or_no(answer) is said


def test_a_question_of_choice() -> None:
    asked = choice_question("Which? ", ["x", "y"], {"post_prompt": "Name it."})
    assert asked == "Which?\n(A) x\n(B) y\nName it."


def test_published_files_are_arrays_or_lines_of_json() -> None:
    assert json_rows([{"text": '[{"a": 1}]'}, {"text": '{"a": 2}\n\n{"a": 3}\n'}]) == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_a_row_of_a_csv_with_other_columns_is_refused() -> None:
    with pytest.raises(UserError, match="row 2 of the CSV has 2 columns where 7 are expected"):
        csv_rows([{"text": "a,[0:1],b,c,d,e?,f\ng,h"}], COLUMNS)


def test_the_right_answer_of_how2qa_stands_at_every_place() -> None:
    row = {"part": "[1.5:4]", "wrong_1": "x", "wrong_2": "y", "wrong_3": "z", "question": "?", "right": "r"}
    found = [document_of({**row, "video_id": str(number)}) for number in range(40)]
    assert {document["answer"] for document in found} == set("ABCD")
    assert all(document["options"]["ABCD".index(document["answer"])] == "r" for document in found)
    assert (found[0]["start"], found[0]["end"]) == (1.5, 4.0)


def test_a_question_without_its_keys_is_refused() -> None:
    with pytest.raises(UserError, match="lacks video_id, start, end, answer, choices; it has question_id, question"):
        star.document_of({"question_id": "1", "question": "?"})


def test_a_file_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(UserError, match=rf"{tmp_path}/star/v\.mp4 does not exist"):
        media_file("star", "v.mp4")


def test_both_answers_of_a_pair_count_together() -> None:
    items = [("a", 1, 1.0), ("a", 1, 1.0), ("a", 2, 1.0), ("a", 2, 0.0), ("b", 3, 1.0), ("b", 3, 1.0)]
    assert pairs_right([{"kind": kind, "pair": pair, "score": score} for kind, pair, score in items]) == 0.75


def test_clues_share_the_frames_by_their_length() -> None:
    assert merged([[4, 6], [1, 3], [2, 5], [8, 9]]) == [(1, 6), (8, 9)]
    assert shares([1, 1], 3) == [2, 1]
    assert shares([5.0, 1.0], 32) == [27, 5]
    assert sum(shares([0.3] * 50, 32)) == 32


def test_f1_is_that_of_means_over_sources() -> None:
    items: list[dict[str, Any]] = [
        {"source": "a", "recall": 1.0, "precision": 0.5},
        {"source": "a", "recall": 0.0, "precision": 0.5},
        {"source": "b", "recall": 1.0, "precision": 0.0},
        {"source": "b", "unreadable": "?"},
    ]
    found = f1_of_means(items)  # recall (1/2 + 1) / 2, precision (1/2 + 0) / 2
    assert (found["recall"], found["precision"]) == (0.75, 0.25)
    assert (found["f1"], found["num_instances"], found["unreadable"]) == (0.375, 3, 1)


def test_a_set_that_no_verdict_was_read_of_has_no_figure() -> None:
    assert f1_of_means([{"source": "a", "unreadable": "?"}])["f1"] is None


def judge(url: str) -> Judge:
    return Judge(f"{url}/v1", "key", "m", pause=0.0)


def test_events_are_compared_both_ways() -> None:
    replies = {
        "1. Runs.\n2. Sits.": '{"relations": ["entailment", "neutral"]}',
        "1. Runs.": '{"relations": ["entailment"]}',
        "He runs": 'Here: {"events": ["Runs."]}',
    }
    with judge_server(replies) as url:
        assert compared(judge(url), "He runs.", "the text", ["Runs.", "Sits."]) == Comparison(0.5, 1.0)
        assert compared(judge(url), " ", "the text", ["Runs."]) == Comparison(0.0, 0.0)  # the judge is not asked


@pytest.mark.parametrize(
    "said", ["yes", '{"relations": ["maybe"]}', '{"relations": []}', '{"relations": "entailment"}', '{"events": []}']
)
def test_a_verdict_that_cannot_be_read_is_not_0(said: str) -> None:
    with judge_server({"1. Runs.": said}) as url, pytest.raises(Unreadable):
        entailed(judge(url), "text", ["Runs."])


def test_a_judge_that_cannot_be_asked_is_an_error() -> None:
    with judge_server({}) as url, pytest.raises(JudgeError, match="cannot be asked: HTTP Error 400"):
        judge(url).answer("?")
    with pytest.raises(JudgeError, match="cannot be asked"):  # nobody listens there any more
        judge(url).answer("?")
    with judge_server({"?": ""}) as url, pytest.raises(JudgeError, match="answered with no text"):
        judge(url).answer("?")


def test_the_judge_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    full = {"OPENAI_API_URL": "http://h/v1/chat/completions", "OPENAI_API_KEY": "k", "MODEL_VERSION": "m"}
    assert Judge.from_environment(full) == Judge("http://h/v1", "k", "m")
    assert Judge.from_environment({**full, "OPENAI_API_BASE": "http://g/v1/"}) == Judge("http://g/v1", "k", "m")
    assert "secret" not in repr(Judge("http://h", "secret"))
    for name in ("OPENAI_API_BASE", "OPENAI_BASE_URL", "OPENAI_API_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(JudgeError, match="set OPENAI_API_BASE"):
        required_judge()
