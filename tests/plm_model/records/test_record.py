from __future__ import annotations

from typing import Any

import pytest

from plm_model.records.record import GptRoleError, RecordError, Turn, VideoClip, parse_record, require_size

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


REGION = {"id": "a", "image": "x.png", "width": 480, "height": 640, "bbox": [[19.5, 309, 34.7, 60], [0, 0, 480, 640]]}


def test_boxes_are_text_in_every_turn() -> None:
    asked = {"from": "human", "value": "What is in <|bbox0|>, not in <|bbox1|>?"}
    said = {"from": "assistant", "value": "A hydrant; <|bbox0|>."}
    record = parse_record({**REGION, "conversations": [asked, said]})
    assert [turn.text for turn in record.turns] == [
        "What is in [040,482,112,576], not in [000,000,999,999]?",
        "A hydrant; [040,482,112,576].",
    ]
    assert record.row["conversations"][0] == asked


def test_text_without_image_may_hold_what_looks_like_a_box() -> None:
    assert parse_record({"id": "a", "text": "<|bbox0|>"}).turns[1].text == "<|bbox0|>"


def test_video_may_be_a_part_of_one() -> None:
    assert parse_record({"id": "a", "video": "v.mp4", "text": "Rain."}).video == VideoClip("v.mp4")
    row = {"id": "a", "video": "v.mp4", "text": "Rain.", "start_time": 2, "end_time": 3.5}
    assert parse_record(row).video == VideoClip("v.mp4", 2, 3.5)


def test_video_region_has_boxes_on_the_frames_that_have_one() -> None:
    row = {
        "id": "a",
        "video": "v.mp4",
        "text": "A cat.",
        "bbox_map": {"0": [1, 2, 3, 4], "6": None, "12": [5, 6, 7.5, 8]},
    }
    clip = parse_record(row).video
    assert clip is not None and clip.boxes == {0: (1, 2, 3, 4), 12: (5, 6, 7.5, 8)}


def test_image_beats_video() -> None:
    record = parse_record({"id": "a", "image": "x.png", "video": "v.mp4", "text": "A cat."})
    assert (record.images, record.video) == (("x.png",), None)


def test_question_and_answer_are_one_exchange() -> None:
    row = {
        "id": "a",
        "video": "v.mp4",
        "question": "Which tool?",
        "answer": "A saw",
        "metadata": {"domain": "woodwork"},
    }
    assert parse_record(row).turns == (Turn("human", "Which tool?"), Turn("assistant", "A saw"))


def test_gpt_is_a_role_only_when_accepted() -> None:
    row = {"id": "a", "conversations": [ASKED, {"from": "gpt", "value": "7"}]}
    assert parse_record(row, accept_gpt_role=True).turns[1] == Turn("assistant", "7")
    with pytest.raises(GptRoleError, match=r"conversations\[1\].from.*convert.accept_gpt_role=true"):
        parse_record(row)


IMAGE = {"id": "a", "image": "x.png"}


@pytest.mark.case("D2")
@pytest.mark.parametrize(
    ("media", "question", "message"),
    [
        ({}, "<image>What?", "1 <image> tag, but the row names no image or video that is read"),
        ({"image": None}, "<image>What?", "names no image or video that is read"),
        ({"image": "", "video": []}, "<video>What?", "1 <video> tag, but the row names no image"),
        ({"image": "x.png"}, "<image><image>Same?", "2 <image> tags, but the row names 1 image"),
        ({"image": ["x.png", "y.png"]}, "<image>" * 3, "3 <image> tags, but the row names 2 images"),
        ({"video": "v.mp4"}, "<image><image>What?", "2 <image> tags, but the row names 1 image or video"),
    ],
)
def test_more_tags_than_media_are_an_error(media: dict[str, Any], question: str, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        parse_record({"id": "a", **media, "conversations": [{"from": "human", "value": question}, SAID]})


TWICE = {"from": "human", "value": "<image>Sure?"}


@pytest.mark.case("D19")
@pytest.mark.parametrize(
    ("turns", "notes"),
    [
        ([ASKED, SAID], set()),
        ([SAID, ASKED, SAID], {"answer_first"}),
        ([ASKED, ASKED, SAID], {"question_replaced"}),
        ([ASKED, SAID, SAID], {"answer_repeated"}),
        ([ASKED, SAID, ASKED], {"question_last"}),
        ([ASKED, SAID | {"value": " "}], {"empty_answer"}),
        ([ASKED, SAID | {"weight": 0}], {"weight_0"}),
        ([ASKED, SAID | {"weight": 1}], set()),
        ([ASKED, SAID | {"weight": 0.5}], {"weight_as_1"}),
        ([ASKED, SAID, TWICE, SAID], {"tag_in_later_turn"}),
        ([ASKED, SAID | {"value": "An <image>"}], {"tag_in_answer"}),
        ([SAID, ASKED, SAID, ASKED], {"answer_first", "question_last"}),
    ],
)
def test_what_of_a_conversation_is_not_used_is_noticed(turns: list[dict[str, Any]], notes: set[str]) -> None:
    assert parse_record(IMAGE | {"conversations": turns}).notes == notes


@pytest.mark.case("D2")
def test_a_row_without_media_and_one_with_too_many_are_noticed() -> None:
    assert parse_record({"id": "a", "conversations": [ASKED, SAID]}).notes == {"text_only"}
    assert parse_record(IMAGE | {"video": "v.mp4", "text": "A"}).notes == {"image_beats_video"}


@pytest.mark.case("D17")
def test_a_box_that_sticks_out_is_cut() -> None:
    record = parse_record(REGION | {"text": "<|bbox0|>", "bbox": [[470, 0, 20, 9]]})
    assert (record.turns[1].text, record.notes) == ("[979,000,999,014]", {"box_clamped"})


@pytest.mark.case("D17")
def test_a_number_is_said_as_text() -> None:
    record = parse_record(IMAGE | {"conversations": [ASKED, SAID | {"value": 7}]})
    assert (record.turns[1], record.notes) == (Turn("assistant", "7"), {"number_as_text"})
    assert parse_record(IMAGE | {"question": "How many?", "answer": 7.5}).turns[1] == Turn("assistant", "7.5")


@pytest.mark.case("D16")
@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([(160, 120)], "image of 480x640 .* upright x.png has 160x120$"),
        ([(640, 480)], "has 640x480; width and height are swapped, or EXIF turns"),
        ([(160, 120), (10, 20)], "has 160x120, 10x20$"),
    ],
)
def test_boxes_of_an_image_of_another_size_are_refused(sizes: list[tuple[int, int]], message: str) -> None:
    with pytest.raises(RecordError, match=message):
        require_size(parse_record(REGION | {"text": ""}), sizes)


@pytest.mark.case("D16")
@pytest.mark.parametrize("key", ["bbox", "bbox_map"])
def test_boxes_without_anything_to_be_on_are_refused(key: str) -> None:
    boxes = {"bbox": [[1, 2, 3, 4]], "bbox_map": {"0": [1, 2, 3, 4]}}
    turns = [{"from": "human", "value": "What?"}, {"from": "assistant", "value": "a"}]
    with pytest.raises(RecordError, match=f"^`{key}` has boxes, but the row has no image or video$"):
        parse_record({"id": "a", "image": [], key: boxes[key], "width": 9, "height": 9, "conversations": turns})


@pytest.mark.parametrize("sizes", [[(480, 640)], [(481, 640)], [(9, 9), (480, 640)]])
def test_boxes_of_one_of_the_images_are_taken(sizes: list[tuple[int, int]]) -> None:
    require_size(parse_record(REGION | {"text": ""}), sizes)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([], "must be a JSON object, not list"),
        ({"text": "a"}, "`id` is missing"),
        ({"id": "", "text": "a"}, "`id` must be a non-empty string"),
        ({"id": "a"}, "`conversations` is missing, and neither `text` nor `question` and `answer` is there instead"),
        ({"id": "a", "question": "Why?"}, "`conversations` is missing"),
        (REGION | {"text": "<|bbox2|>"}, r"<\|bbox2\|> stands in the text, but `bbox` has 2 boxes"),
        (
            REGION | {"text": "", "bbox": [[0, 0, 2, 2], [480, 0, 20, 9]]},
            r"`bbox\[1\]`: .* outside the image of 480x640",
        ),
        (REGION | {"text": "", "bbox": [[0, 0, float("nan"), 1]]}, r"`bbox\[0\]`: a box must be four numbers"),
        (REGION | {"text": "", "bbox": [0, 0, 9, 9]}, r"`bbox\[0\]`: a box must be four numbers, not 0"),
        (REGION | {"text": "", "bbox": "x"}, "`bbox` must be a list of boxes"),
        (REGION | {"text": "", "width": None}, "`bbox` needs the image's `width` and `height`"),
        (REGION | {"text": "", "width": "480"}, "as numbers, not '480' and 640"),
        ({"id": "a", "video": "v", "text": "", "bbox_map": {"7": [0.1, 0.1, 0.5, 0.5]}}, "between 0 and 1"),
        ({"id": "a", "text": "a", "conversations": [ASKED, SAID | {"weight": "x"}]}, r"\[1\].weight` is 'x'"),
        ({"id": "a", "image": "x", "text": "<|bbox0|>"}, "`bbox` has 0 boxes"),
        ({"id": "a", "video": ["v", "w"], "text": ""}, "`video` must be a path"),
        ({"id": "a", "video": "v", "text": "", "start_time": "1"}, "`start_time` is '1'"),
        ({"id": "a", "video": "v", "text": "", "end_time": float("nan")}, "`end_time` is nan"),
        ({"id": "a", "video": "v", "text": "", "end_time": -1}, "`end_time` is -1"),
        ({"id": "a", "video": "v", "text": "", "bbox_map": [1]}, "`bbox_map` must map"),
        ({"id": "a", "video": "v", "text": "", "bbox_map": {"07": None}}, "`bbox_map` names frame '07'"),
        ({"id": "a", "video": "v", "text": "", "bbox_map": {"7": [5, 0, 1, 9]}}, r"`bbox_map.7`: .*x1 <= x2"),
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
