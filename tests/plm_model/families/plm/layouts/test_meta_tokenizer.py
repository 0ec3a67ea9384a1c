"""A rank file gives the ids that tiktoken gives, and a tokenizer that came from one turns back into it."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path

import pytest

from plm_model.families.plm.layouts.meta_tokenizer import (
    PATTERN,
    SPECIALS,
    RanksError,
    parse_ranks,
    rank_file,
    tokenizer_json,
)
from plm_model.families.plm.tokenizer import Tokenizer
from tests.plm_model.model_directories import TOKENIZER

tiktoken = pytest.importorskip("tiktoken")


def lines(tokens: list[bytes]) -> bytes:
    return b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens))


def made_up(seed: int) -> bytes:
    """All bytes, and tokens joined at random from a, b and c: ranks that no training would give."""
    generator = random.Random(seed)
    tokens = [bytes([value]) for value in range(256)]
    parts = [b"a", b"b", b"c"]
    while len(tokens) < 300:
        token = generator.choice(parts) + generator.choice(parts)
        if token not in tokens and len(token) < 8:
            tokens.append(token)
            parts.append(token)
    return lines(tokens)


def reference(ranks: bytes) -> tiktoken.Encoding:
    return tiktoken.Encoding("made up", pat_str=PATTERN, mergeable_ranks=parse_ranks(ranks), special_tokens={})


def texts(alphabet: str, count: int) -> list[str]:
    generator = random.Random(0)
    return ["".join(generator.choices(alphabet, k=generator.randint(1, 30))) for _ in range(count)]


@pytest.mark.parametrize("seed", range(3))
def test_made_up_ranks_give_the_ids_of_tiktoken(seed: int) -> None:
    ranks = made_up(seed)
    theirs, ours = reference(ranks), Tokenizer(tokenizer_json(ranks))
    assert all(ours.encode(text) == theirs.encode_ordinary(text) for text in texts("abc", 300))


def test_learned_ranks_give_the_ids_of_tiktoken_and_of_the_tokenizer_they_came_from() -> None:
    source = TOKENIZER.read_bytes()
    ranks = rank_file(source)
    theirs, ours, before = reference(ranks), Tokenizer(tokenizer_json(ranks, 1010)), Tokenizer(source)
    for text in texts("the iang'sLL\n\r\t 123éß漢😀ſK̀<|>", 500):
        assert ours.encode(text) == theirs.encode_ordinary(text) == before.encode(text)
        assert ours.decode(ours.encode(text)) == text


def test_the_special_tokens_have_the_published_places() -> None:
    assert len(SPECIALS) == 256
    places = {0: "<|begin_of_text|>", 2: "<|image|>", 3: "<|reserved_special_token_1|>", 9: "<|eot_id|>"}
    places |= {
        5: "<|reserved_special_token_3|>",
        8: "<|reserved_special_token_4|>",
        255: "<|reserved_special_token_250|>",
    }
    assert {place: SPECIALS[place] for place in places} == places
    tokenizer = Tokenizer(tokenizer_json(made_up(0)))
    assert (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eot_id) == (556, 300, 309)


def test_a_special_in_the_text_is_text() -> None:
    tokenizer = Tokenizer(tokenizer_json(made_up(0)))
    assert max(tokenizer.encode("<|eot_id|>")) < 300


def test_there_and_back_is_the_same_file() -> None:
    ranks = made_up(1)
    assert rank_file(tokenizer_json(ranks)) == ranks


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (made_up(0) + b"not base64 at all\n", "line 301 is not a token"),
        (made_up(0) + b"YWJjYWJj 400\n", "are not 0 to 300"),
        (lines([b"a", b"b"]), "lacks one of the 256 single bytes"),
    ],
)
def test_a_damaged_file_is_refused(source: bytes, message: str) -> None:
    with pytest.raises(RanksError, match=message):
        tokenizer_json(source)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normalizer": {"type": "NFC"}}, "normalises text"),
        ({"pre_tokenizer": None}, "does not split text as Llama 3 does"),
        ({"added_tokens": []}, "special tokens are not PLM's"),
    ],
)
def test_a_tokenizer_that_no_rank_file_expresses_is_refused(change: dict, message: str) -> None:
    with pytest.raises(RanksError, match=message):
        rank_file(json.dumps(json.loads(TOKENIZER.read_bytes()) | change).encode())


def test_merges_that_are_not_in_the_order_of_ids_are_refused(tmp_path: Path) -> None:
    spec = json.loads(tokenizer_json(made_up(0)))
    spec["model"] |= {"ignore_merges": False, "merges": spec["model"]["merges"][:1]}
    with pytest.raises(RanksError, match="merges are not in the order of its ids"):
        rank_file(json.dumps(spec).encode())
