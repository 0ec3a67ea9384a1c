from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plm_model.families.plm.settings import SYSTEM_PROMPT
from plm_model.families.plm.tokenizer import Tokenizer, TokenizerError

FOLDER = Path(__file__).parents[4] / "configs" / "tokenizers" / "plm_tiny"
TOKENIZER = Tokenizer.from_file(FOLDER)


def test_the_committed_script_makes_the_committed_file_byte_for_byte(tmp_path: Path) -> None:
    out = tmp_path / "tokenizer.json"
    subprocess.run([sys.executable, str(FOLDER / "make_tokenizer.py"), str(out)], check=True)
    assert out.read_bytes() == (FOLDER / "tokenizer.json").read_bytes()


def test_base_has_at_most_a_thousand_entries_and_the_specials_follow_in_plms_order() -> None:
    added = json.loads((FOLDER / "tokenizer.json").read_text())["added_tokens"]
    base = TOKENIZER.bos_id
    assert base <= 1000
    assert [(token["id"] - base, token["content"]) for token in added] == [
        (0, "<|begin_of_text|>"),
        (1, "<|end_of_text|>"),
        (2, "<|image|>"),
        (3, "<|reserved_special_token_1|>"),
        (4, "<|reserved_special_token_2|>"),
        (5, "<|reserved_special_token_3|>"),
        (6, "<|start_header_id|>"),
        (7, "<|end_header_id|>"),
        (8, "<|reserved_special_token_4|>"),
        (9, "<|eot_id|>"),
    ]
    assert TOKENIZER.vocab_size == base + 10


def test_system_prompt_is_one_token_a_word() -> None:
    assert len(TOKENIZER.encode(SYSTEM_PROMPT)) == 35


@pytest.mark.parametrize("word", ["system", "user", "assistant", "\n\n"])
def test_header_words_are_single_tokens(word: str) -> None:
    assert len(TOKENIZER.encode(word)) == 1


def test_numbers_are_split_after_three_digits() -> None:
    assert TOKENIZER.encode("1234567") == TOKENIZER.encode("123") + TOKENIZER.encode("456") + TOKENIZER.encode("7")


@given(st.text())
def test_any_text_survives_encoding_and_decoding(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@given(st.lists(st.one_of(st.text(max_size=5), st.sampled_from(["<|image|>", "<|eot_id|>", "<|end_of_text|>"]))))
def test_no_text_yields_a_special_token(parts: list[str]) -> None:
    assert all(token < TOKENIZER.bos_id for token in TOKENIZER.encode("".join(parts)))


def test_a_special_token_that_is_not_flagged_as_special_is_text_all_the_same() -> None:
    spec = json.loads(TOKENIZER.source)
    for token in spec["added_tokens"]:
        token["special"] = False
    assert Tokenizer(json.dumps(spec).encode()).encode("<|image|>") == TOKENIZER.encode("<|image|>")


def test_specials_are_found_by_name_whatever_their_ids() -> None:
    spec = json.loads(TOKENIZER.source)
    spec["added_tokens"].reverse()
    for offset, token in enumerate(spec["added_tokens"]):
        token["id"] = TOKENIZER.bos_id + offset
    assert Tokenizer(json.dumps(spec).encode()).bos_id == TOKENIZER.bos_id + 9


def test_decoding_shows_specials_only_when_asked() -> None:
    ids = [TOKENIZER.bos_id, *TOKENIZER.encode("hi"), TOKENIZER.eot_id]
    assert TOKENIZER.decode(ids) == "hi"
    assert TOKENIZER.decode(ids, skip_special=False) == "<|begin_of_text|>hi<|eot_id|>"


def test_saved_file_has_the_same_bytes(tmp_path: Path) -> None:
    assert Tokenizer.from_file(TOKENIZER.save(tmp_path)).bytes_digest == TOKENIZER.bytes_digest


def test_pickling_keeps_the_tokenizer_whole() -> None:
    assert pickle.loads(pickle.dumps(TOKENIZER)).encode("a <|image|>") == TOKENIZER.encode("a <|image|>")


def test_missing_special_token_is_named(tmp_path: Path) -> None:
    spec = json.loads(TOKENIZER.source)
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["content"] != "<|eot_id|>"]
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(spec))
    with pytest.raises(TokenizerError, match=r"tokenizer.json: the special token <\|eot_id\|> is missing"):
        Tokenizer.from_file(file)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"nowhere\.json"):
        Tokenizer.from_file(tmp_path / "nowhere.json")
