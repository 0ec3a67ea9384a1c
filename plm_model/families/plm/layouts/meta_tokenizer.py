"""`tokenizer.model`, the rank file of Meta's releases, as a `tokenizer.json` with the same ids, and back.

A line of the file is a token's bytes in base64 and its rank, which is its id. Merging always takes the adjacent pair whose
joined bytes have the lowest rank, so every way to split a token into two known ones becomes a merge, in the order of the
token's rank. With the tokens a, b, c, ab, bc, abc (ranks 0 to 5) the merges are a+b, b+c, a+bc, ab+c.
The special tokens follow the ranks in a fixed order.
"""

from __future__ import annotations

import base64
import binascii
import json
from functools import lru_cache
from typing import Any

import tokenizers

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
NAMED = {
    0: "<|begin_of_text|>",
    1: "<|end_of_text|>",
    2: "<|image|>",
    6: "<|start_header_id|>",
    7: "<|end_header_id|>",
    9: "<|eot_id|>",
}
RESERVED = [2, *(place for place in range(256) if place not in NAMED)]  # the image took the place of the first, 0
SPECIALS = tuple(NAMED.get(place) or f"<|reserved_special_token_{RESERVED.index(place)}|>" for place in range(256))
FEWEST_SPECIALS = 10  # up to <|eot_id|>
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


class RanksError(ValueError):
    """A rank file that cannot be read or does not fit the model, or a tokenizer that a rank file cannot express."""


def parse_ranks(source: bytes) -> dict[bytes, int]:
    """The tokens of a rank file in the order of their ranks 0, 1, 2 ...; RanksError names the line that is wrong."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(source.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise RanksError(f"line {number} is not a token in base64 and its rank") from error
    ordered = dict(sorted(ranks.items(), key=lambda item: item[1]))
    if list(ordered.values()) != list(range(len(ordered))):
        raise RanksError(f"the ranks of its {len(ordered):,} tokens are not 0 to {len(ordered) - 1:,}")
    if any(bytes([value]) not in ranks for value in range(256)):
        raise RanksError("it lacks one of the 256 single bytes")
    return ordered


def tokenizer_json(source: bytes, vocab_size: int | None = None) -> bytes:
    """A `tokenizer.json` with the ids of a rank file; the special tokens fill up to `vocab_size` (default: all 256)."""
    ranks = parse_ranks(source)
    specials = 256 if vocab_size is None else vocab_size - len(ranks)
    if not FEWEST_SPECIALS <= specials <= len(SPECIALS):
        raise RanksError(
            f"its {len(ranks):,} tokens do not belong to a vocabulary of {vocab_size:,}: that would leave {specials:,} "
            f"special tokens, and there are {FEWEST_SPECIALS} to {len(SPECIALS)}"
        )
    names = byte_characters()
    spelled = {token: "".join(names[value] for value in token) for token in ranks}
    model = {
        "type": "BPE",
        "ignore_merges": True,
        "vocab": {spelled[token]: rank for token, rank in ranks.items()},
        "merges": [[spelled[left], spelled[right]] for left, right in merges(ranks)],
    }
    added = [added_token(len(ranks) + place, SPECIALS[place]) for place in range(specials)]
    return json.dumps(described(model, added), ensure_ascii=False).encode()


def merges(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Every split of a token into two tokens, in the order of the token's rank, then of the parts'."""
    found = []
    for token in ranks:
        splits = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        known = [(left, right) for left, right in splits if left in ranks and right in ranks]
        found += sorted(known, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
    return found


def described(model: dict[str, Any], added: list[dict[str, Any]]) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, BYTE_LEVEL]},
        "post_processor": None,
        "decoder": {**BYTE_LEVEL, "add_prefix_space": True, "use_regex": True},
        "model": {"dropout": None, "unk_token": None, "fuse_unk": False, "byte_fallback": False, **model},
    }


def added_token(token_id: int, content: str) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": token_id, "content": content, **flags}


def rank_file(source: bytes) -> bytes:
    """The rank file of a `tokenizer.json`; RanksError when no rank file gives its ids."""
    spec = json.loads(source)
    specials = {token["id"]: token["content"] for token in spec.get("added_tokens", [])}
    known = spec["model"].get("vocab")
    if not isinstance(known, dict):
        raise RanksError("its model has no table of tokens")
    vocab = {token: rank for token, rank in known.items() if rank not in specials}
    require_ranks(spec, vocab, specials)
    values = {name: value for value, name in byte_characters().items()}
    lines = []
    for token in sorted(vocab, key=vocab.__getitem__):
        lines.append(base64.b64encode(bytes(values[name] for name in token)) + b" %d\n" % vocab[token])
    made = b"".join(lines)
    rebuilt = tokenizer_json(made, len(vocab) + len(specials))
    if not same_merges(spec["model"], json.loads(rebuilt)["model"]):
        require_same_ids(source, rebuilt, list(vocab))
    return made


def same_merges(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Whether both merge alike; older files write a merge as one string."""
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in ours["merges"]]
    return bool(ours.get("ignore_merges")) and pairs == theirs["merges"]


def require_ranks(spec: dict[str, Any], vocab: dict[str, int], specials: dict[int, str]) -> None:
    """RanksError unless the tokenizer is byte-level BPE, splits as Llama 3 does and places its specials as PLM does."""
    size = len(vocab)
    order = [specials.get(size + place) for place in range(len(specials))]
    known = set(byte_characters().values())
    # Hugging Face gives the first reserved token to videos.
    named = [SPECIALS[3] if name == "<|video|>" else name for name in order]
    wrong = {
        "its model is not byte-level BPE": spec["model"].get("type") != "BPE" or not known.issuperset("".join(vocab)),
        "it normalises text": spec.get("normalizer") is not None,
        "it does not split text as Llama 3 does": PATTERN not in regexes(spec.get("pre_tokenizer")),
        "its ids are not ranks": sorted(vocab.values()) != list(range(size)),
        "its special tokens are not PLM's": not FEWEST_SPECIALS <= len(named) <= 256
        or named != list(SPECIALS[: len(named)]),
    }
    for reason in (reason for reason, holds in wrong.items() if holds):
        raise RanksError(reason)


def regexes(pre_tokenizer: Any) -> list[str]:
    steps = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer or {}])
    return [step["pattern"].get("Regex", "") for step in steps if step.get("type") == "Split"]


def require_same_ids(source: bytes, rebuilt: bytes, vocab: list[str]) -> None:
    """RanksError unless every entry of the vocabulary, as a text, gets the same ids from both."""
    ours = tokenizers.Tokenizer.from_str(source.decode())
    theirs = tokenizers.Tokenizer.from_str(rebuilt.decode())
    texts = [ours.decoder.decode([token]) for token in vocab]
    pairs = zip(*(each.encode_batch(texts, add_special_tokens=False) for each in (ours, theirs)), strict=True)
    if any(left.ids != right.ids for left, right in pairs):
        raise RanksError("its merges are not in the order of its ids")


@lru_cache(maxsize=1)
def byte_characters() -> dict[int, str]:
    """The character that stands for each byte in a byte-level vocabulary: itself when it prints, else one from U+0100 on."""
    printing = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [value for value in range(256) if value not in printing]
    return {value: chr(value) for value in printing} | {value: chr(256 + n) for n, value in enumerate(hidden)}
