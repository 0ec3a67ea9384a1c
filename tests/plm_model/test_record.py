from __future__ import annotations

from typing import Any

import pytest

from plm_model.record import GptRoleError, RecordError, Turn, parse_record

ASKED = {"from": "human", "value": "Which digit?"}
SAID = {"from": "assistant", "value": "7"}


def test_row_becomes_typed_and_keeps_its_other_keys() -> None:
    record = parse_record({"id": "a", "image": "x.png", "conversations": [ASKED, SAID], "split": "train"})
    assert (record.id, record.images) == ("a", ("x.png",))
    assert record.turns == (Turn("human", "Which digit?"), Turn("assistant", "7"))
    assert record.row["split"] == "train"


def test_text_alone_becomes_an_answer_to_an_empty_question() -> None:
    assert parse_record({"id": "a", "text": "A cat."}).turns == (Turn("human", ""), Turn("assistant", "A cat."))


def test_image_may_be_a_list_or_absent() -> None:
    assert parse_record({"id": "a", "image": ["x", "y"], "text": ""}).images == ("x", "y")
    assert parse_record({"id": "a", "text": ""}).images == ()


def test_gpt_is_a_role_only_when_accepted() -> None:
    row = {"id": "a", "conversations": [ASKED, {"from": "gpt", "value": "7"}]}
    assert parse_record(row, accept_gpt_role=True).turns[1] == Turn("assistant", "7")
    with pytest.raises(GptRoleError, match=r"conversations\[1\].from.*convert.accept_gpt_role=true"):
        parse_record(row)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([], "must be a JSON object, not list"),
        ({"text": "a"}, "`id` is missing"),
        ({"id": "", "text": "a"}, "`id` must be a non-empty string"),
        ({"id": "a"}, "`conversations` is missing"),
        ({"id": "a", "conversations": []}, "non-empty list"),
        ({"id": "a", "conversations": [ASKED, {"from": "assistant"}]}, r"conversations\[1\]"),
        (
            {"id": "a", "conversations": [{"from": "system", "value": "x"}]},
            "'system'; it must be `human` or `assistant`",
        ),
        ({"id": "a", "image": 3, "text": "a"}, "`image` must be a path"),
        ({"id": "a", "image": ["x", 3], "text": "a"}, "`image` must be a path"),
        ({"id": "a", "text": "\ud83d"}, "`text` holds half of a surrogate pair"),
    ],
)
def test_what_is_wrong_with_a_row_is_named(row: Any, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        parse_record(row)
