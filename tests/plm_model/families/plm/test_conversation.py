from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from plm_model.families.plm.conversation import ChatTemplate
from plm_model.families.plm.settings import ProcessorConfig
from plm_model.families.plm.tokenizer import Tokenizer
from plm_model.records.record import Record, parse_record
from plm_model.records.turns import RecordError

TOKENIZER = Tokenizer.from_file(Path(__file__).parents[4] / "configs" / "tokenizers" / "plm_tiny")
TEMPLATE = ChatTemplate(TOKENIZER, ProcessorConfig(system_prompt="Be kind."), tokens_per_tile=2)
WARMUP = ChatTemplate(TOKENIZER, ProcessorConfig(conversation_format="warmup"), tokens_per_tile=2)

SYSTEM = "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
USER = "<|start_header_id|>user<|end_header_id|>\n\n"
ASSISTANT = "<|start_header_id|>assistant<|end_header_id|>\n\n"
IMAGE = "<|image|>"


def dialogue(*texts: str, roles: Sequence[str] = ("human", "assistant"), **keys: object) -> Record:
    turns = [{"from": roles[n % len(roles)], "value": text} for n, text in enumerate(texts)]
    return parse_record({"id": "a", "conversations": turns, **keys})


def rendered(template: ChatTemplate, record: Record, tile_counts: Sequence[int]) -> list[tuple[str, bool]]:
    pieces = template.pieces(record, tile_counts)
    return [(TOKENIZER.decode(piece.tokens, skip_special=False), piece.supervised) for piece in pieces]


def test_image_question_and_answer() -> None:
    record = dialogue("<image>\nWhich digit?", "7", image="x.png")
    assert rendered(TEMPLATE, record, [2]) == [
        (f"{SYSTEM}{USER}{IMAGE * 4}Which digit?<|eot_id|>", False),
        (f"{ASSISTANT}7<|eot_id|><|end_of_text|>", True),
    ]


def test_several_exchanges_end_the_text_once() -> None:
    assert rendered(TEMPLATE, dialogue("a", "b", "c", "d"), []) == [
        (f"{SYSTEM}{USER}a<|eot_id|>", False),
        (f"{ASSISTANT}b<|eot_id|>", True),
        (f"{USER}c<|eot_id|>", False),
        (f"{ASSISTANT}d<|eot_id|><|end_of_text|>", True),
    ]


def test_several_images_replace_their_tags_in_place() -> None:
    record = dialogue("<image> or <image>?", "b", "And <image>?", "c", image=["x", "y", "z"])
    questions = [text for text, supervised in rendered(TEMPLATE, record, [1, 1, 1]) if not supervised]
    assert questions == [
        f"{SYSTEM}{USER}{IMAGE * 2} or {IMAGE * 2}?<|eot_id|>",
        f"{USER}And {IMAGE * 2}?<|eot_id|>",
    ]


def test_tags_and_images_that_do_not_match_are_both_counted() -> None:
    with pytest.raises(RecordError, match="1 <image> tags, but the record has 2 images"):
        TEMPLATE.pieces(dialogue("<image>?", "b", image=["x", "y"]), [1, 1])


@pytest.mark.parametrize("text", ["<image>\nWhat?", "What?\n<image>", "<image>What?", "What?<image>"])
def test_tag_of_a_single_image_goes_with_one_newline_and_the_image_comes_first(text: str) -> None:
    question = rendered(TEMPLATE, dialogue(text, "7", image="x"), [1])[0][0]
    assert question == f"{SYSTEM}{USER}{IMAGE * 2}What?<|eot_id|>"


def test_tag_is_stripped_from_the_first_question_only() -> None:
    second = rendered(TEMPLATE, dialogue("a", "b", "The <image> tag?", "d", image="x"), [1])[2][0]
    assert second == f"{USER}The <image> tag?<|eot_id|>"


def test_literal_image_token_in_a_question_is_text() -> None:
    tokens = TEMPLATE.pieces(dialogue("What is <|image|>?", "A tag"), [])[0].tokens
    assert TOKENIZER.image_id not in tokens
    assert "<|image|>" in TOKENIZER.decode(tokens)


def test_warmup_is_image_and_caption() -> None:
    assert rendered(WARMUP, dialogue("<image>\nDescribe.", "A cat", image="x"), [1]) == [
        (IMAGE * 2, False),
        ("A cat\n", True),
    ]


@pytest.mark.parametrize(
    ("roles", "texts", "kept"),
    [
        (("assistant", "human", "assistant"), ("skipped", "q", "a"), ["q", "a"]),
        (("human", "assistant", "human"), ("q", "a", "unanswered"), ["q", "a"]),
        (("human", "human", "assistant"), ("first", "later", "a"), ["later", "a"]),
        (("human", "assistant", "assistant"), ("q", "a", "again"), ["q", "a"]),
    ],
)
def test_turns_without_partner(roles: Sequence[str], texts: Sequence[str], kept: list[str]) -> None:
    question, answer = rendered(TEMPLATE, dialogue(*texts, roles=roles), [])
    assert question[0].endswith(f"{USER}{kept[0]}<|eot_id|>")
    assert answer[0] == f"{ASSISTANT}{kept[1]}<|eot_id|><|end_of_text|>"


@pytest.mark.case("D19")
def test_an_answer_of_weight_0_is_given_and_not_trained() -> None:
    turns = [{"from": ("human", "assistant")[n % 2], "value": text} for n, text in enumerate("abcd")]
    record = parse_record({"id": "a", "conversations": [turns[0], {**turns[1], "weight": 0}, *turns[2:]]})
    assert rendered(TEMPLATE, record, []) == [
        (f"{SYSTEM}{USER}a<|eot_id|>", False),
        (f"{ASSISTANT}b<|eot_id|>", False),
        (f"{USER}c<|eot_id|>", False),
        (f"{ASSISTANT}d<|eot_id|><|end_of_text|>", True),
    ]


def test_no_answered_question_is_rejected() -> None:
    with pytest.raises(RecordError, match="no question is followed by an answer"):
        TEMPLATE.pieces(dialogue("q"), [])


@pytest.mark.parametrize("text", ["<video>\nWhat?", "What?\n<video>", "<image>\nWhat?", "What?"])
def test_frames_of_a_video_come_first_with_nothing_between_them(text: str) -> None:
    question, answer = rendered(TEMPLATE, dialogue(text, "Rain", video="v.mp4"), [3])
    assert question == (f"{SYSTEM}{USER}{IMAGE * 6}What?<|eot_id|>", False)
    assert answer == (f"{ASSISTANT}Rain<|eot_id|><|end_of_text|>", True)


def test_caption_of_a_video_answers_an_empty_question() -> None:
    record = parse_record({"id": "a", "video": "v.mp4", "text": "Rain."})
    assert rendered(TEMPLATE, record, [2]) == [
        (f"{SYSTEM}{USER}{IMAGE * 4}<|eot_id|>", False),
        (f"{ASSISTANT}Rain.<|eot_id|><|end_of_text|>", True),
    ]
    assert rendered(WARMUP, record, [2]) == [(IMAGE * 4, False), ("Rain.\n", True)]


def test_box_of_a_region_stands_in_question_and_answer() -> None:
    record = dialogue("Is <|bbox0|> red?", "Yes, <|bbox0|> is", image="x", bbox=[[0, 0, 50, 50]], width=100, height=100)
    (question, _), (answer, _) = rendered(TEMPLATE, record, [1])
    assert question.endswith("Is [000,000,500,500] red?<|eot_id|>")
    assert answer.startswith(f"{ASSISTANT}Yes, [000,000,500,500] is")


def test_prompt_about_a_video_is_a_prefix_of_its_training_sequence() -> None:
    record = dialogue("<video>\nWhat?", "Rain", video="v.mp4", bbox_map={"0": [0, 0, 8, 8]})
    sequence = [token for piece in TEMPLATE.pieces(record, [2]) for token in piece.tokens]
    prompt = TEMPLATE.prompt(record, [2])
    assert sequence[: len(prompt)] == prompt


def test_prompt_ends_after_the_assistant_header_of_the_last_question() -> None:
    prompt = TEMPLATE.prompt(dialogue("a", "b", "c", "d", image="x"), [1])
    assert TOKENIZER.decode(prompt, skip_special=False) == (
        f"{SYSTEM}{USER}{IMAGE * 2}a<|eot_id|>{ASSISTANT}b<|eot_id|>{USER}c<|eot_id|>{ASSISTANT}"
    )


@pytest.mark.parametrize("answer", ["7", "\n7", " 7", ""])
def test_prompt_is_a_prefix_of_the_training_sequence(answer: str) -> None:
    record = dialogue("Which digit?", answer)
    sequence = [token for piece in TEMPLATE.pieces(record, []) for token in piece.tokens]
    prompt = TEMPLATE.prompt(record, [])
    assert sequence[: len(prompt)] == prompt


def test_prompt_needs_no_answer_in_the_record() -> None:
    assert TEMPLATE.prompt(dialogue("q"), []) == TEMPLATE.prompt(dialogue("q", "a"), [])
