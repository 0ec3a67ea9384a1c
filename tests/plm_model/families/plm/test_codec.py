from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plm_model.families.plm.codec import Codec
from plm_model.families.plm.settings import PLMConfig, ProcessorConfig, VisionConfig
from plm_model.families.plm.tokenizer import Tokenizer
from plm_model.nn.config import DecoderConfig
from plm_model.packs.example import NO_TARGET, Example
from plm_model.records.record import Record, parse_record
from plm_model.records.turns import RecordError

TOKENIZER = Tokenizer.from_file(Path(__file__).parents[4] / "configs" / "tokenizers" / "plm_tiny")
CONFIG = PLMConfig(
    vision=VisionConfig(image_size=56),
    decoder=DecoderConfig(vocab_size=TOKENIZER.vocab_size),
    image_token_id=TOKENIZER.image_id,
    processor=ProcessorConfig(system_prompt="Be kind.", vision_input_type="tile"),
)
CODEC = Codec(TOKENIZER, CONFIG)


def dialogue(*texts: str, **keys: object) -> Record:
    turns = [{"from": ("human", "assistant")[n % 2], "value": text} for n, text in enumerate(texts)]
    return parse_record({"id": "a", "conversations": turns, **keys})


def spoken(example: Example) -> str:
    return TOKENIZER.decode(example.targets[example.targets != NO_TARGET], skip_special=False)


def test_targets_are_the_tokens_that_follow() -> None:
    example = CODEC.encode(dialogue("Which digit?", "7", image="x"), [1])
    marked = np.flatnonzero(example.targets != NO_TARGET)
    assert example.tokens[marked[1:]].tolist() == example.targets[marked[:-1]].tolist()
    assert example.targets[-1] == TOKENIZER.eos_text_id


def test_answer_with_header_and_end_is_supervised_and_nothing_else() -> None:
    example = CODEC.encode(dialogue("Which digit?", "7", image="x"), [1])
    assert spoken(example) == "<|start_header_id|>assistant<|end_header_id|>\n\n7<|eot_id|><|end_of_text|>"


texts = st.text(max_size=20)


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=4), st.sampled_from(["none", "image", "video"]))
def test_supervised_text_is_exactly_what_the_assistant_says(exchanges: list[tuple[str, str]], medium: str) -> None:
    shown: dict[str, dict[str, object]] = {"none": {}, "image": {"image": "x"}, "video": {"video": "x"}}
    record = dialogue(*(text for pair in exchanges for text in pair), **shown[medium])
    example = CODEC.encode(record, [2] if shown[medium] else [])
    header = "<|start_header_id|>assistant<|end_header_id|>\n\n"
    assert spoken(example) == "".join(f"{header}{answer}<|eot_id|>" for _, answer in exchanges) + "<|end_of_text|>"


def test_arrays_are_int32_of_one_length_and_plain_causal() -> None:
    example = CODEC.encode(dialogue("a", "b"), [])
    arrays = [getattr(example, field.name) for field in dataclasses.fields(example)]
    assert {(array.dtype.name, array.shape) for array in arrays} == {("int32", (example.length,))}
    assert example.pos.tolist() == list(range(example.length))
    assert not example.seg.any() and not example.group.any()


def test_each_tile_has_its_placeholders() -> None:
    example = CODEC.encode(dialogue("a", "b", image="x"), [3])
    assert (example.tokens == TOKENIZER.image_id).sum() == 3 * CONFIG.tokens_per_tile == 12


def test_last_exchange_is_dropped_when_it_does_not_fit() -> None:
    whole = CODEC.encode(dialogue("a", "b", "c", "d"), [])
    cut = Codec(TOKENIZER, CONFIG, max_tokens=whole.length - 1).encode(dialogue("a", "b", "c", "d"), [])
    assert spoken(cut) == "<|start_header_id|>assistant<|end_header_id|>\n\nb<|eot_id|>"
    assert TOKENIZER.decode(cut.tokens).endswith("b")


@pytest.mark.case("D19")
def test_a_dialogue_that_is_cut_to_fit_says_so() -> None:
    record = dialogue("a", "b", "c", "d")
    whole, notes = CODEC.encode_noted(record, [])
    assert notes == frozenset()
    assert Codec(TOKENIZER, CONFIG, max_tokens=whole.length - 1).encode_noted(record, [])[1] == {"cut_to_fit"}


def test_a_dialogue_is_not_cut_before_one_of_its_images() -> None:
    record = dialogue("<image>", "b", "<image>", "d", image=["x", "y"])
    whole = CODEC.encode(record, [1, 1])
    with pytest.raises(RecordError, match=f"not all of its 2 images are within the limit of {whole.length - 1} tokens"):
        Codec(TOKENIZER, CONFIG, max_tokens=whole.length - 1).encode(record, [1, 1])


@pytest.mark.case("D19")
def test_a_record_of_which_nothing_is_trained_is_rejected() -> None:
    said = [{"from": "human", "value": "a"}, {"from": "assistant", "value": "b", "weight": 0}]
    with pytest.raises(RecordError, match="no answer that is trained is within the limit"):
        CODEC.encode(parse_record({"id": "a", "conversations": said}), [])


def test_example_that_just_fits_is_whole() -> None:
    whole = CODEC.encode(dialogue("a", "b"), [])
    assert Codec(TOKENIZER, CONFIG, max_tokens=whole.length).encode(dialogue("a", "b"), []).length == whole.length


def test_answer_that_does_not_fit_is_rejected_with_both_numbers() -> None:
    length = CODEC.encode(dialogue("a", "b"), []).length
    with pytest.raises(RecordError, match=f"answer does not fit: .* needs {length} tokens, the limit is {length - 1}"):
        Codec(TOKENIZER, CONFIG, max_tokens=length - 1).encode(dialogue("a", "b"), [])


def test_prompt_has_no_targets() -> None:
    prompt = CODEC.prompt(dialogue("a", "b", image="x"), [1])
    assert prompt.supervised == 0
    assert TOKENIZER.decode(prompt.tokens).endswith("assistant\n\n")


def test_empty_prompt_is_rejected() -> None:
    warmup = dataclasses.replace(CONFIG, processor=ProcessorConfig(conversation_format="warmup"))
    with pytest.raises(RecordError, match="needs an image"):
        Codec(TOKENIZER, warmup).prompt(dialogue("a", "b"), [])


def test_model_for_another_tokenizer_is_refused() -> None:
    with pytest.raises(ValueError, match="image_token_id is 5"):
        Codec(TOKENIZER, dataclasses.replace(CONFIG, image_token_id=5))
