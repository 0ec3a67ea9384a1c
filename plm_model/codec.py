"""A Record becomes an Example: the integers that a PLM is trained on, or prompted with.

Worked example, with 1 placeholder for the image and `Which digit?` answered by `7`:

    sequence  BOS ... user-header IMG Which digit ? eot  assistant-header 7 eot EOS
    tokens    all but the last
    targets   targets[i] = sequence[i + 1] where the assistant says that (its header, text, eot and EOS), else -100
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from plm_model.config import PLMConfig
from plm_model.conversation import Piece, RejectedRecord, Template
from plm_model.record import Record
from plm_model.tokenizer import Tokenizer

NO_TARGET = -100


@dataclass(frozen=True)
class Example:
    """One encoded conversation; every array is int32 [length].

    `targets` is shifted already (what a position must predict, -100 = nothing); `pos` is the position for RoPE; `seg`
    and `group` shape the attention mask (both 0 for PLM: plain causal).
    """

    tokens: np.ndarray
    targets: np.ndarray
    pos: np.ndarray
    seg: np.ndarray
    group: np.ndarray

    @property
    def length(self) -> int:
        return len(self.tokens)

    @property
    def supervised(self) -> int:
        """How many positions have a target."""
        return int((self.targets != NO_TARGET).sum())


@dataclass(frozen=True)
class Codec:
    """Encodes Records for one model. `max_tokens` is the longest example, at most the decoder's `max_seq_len`."""

    tokenizer: Tokenizer
    config: PLMConfig
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.tokenizer.image_id != self.config.image_token_id:
            raise ValueError(
                f"the tokenizer's <|image|> is id {self.tokenizer.image_id}, "
                f"but the model's image_token_id is {self.config.image_token_id}"
            )
        if self.tokenizer.vocab_size > self.config.decoder.vocab_size:
            raise ValueError(
                f"the tokenizer has {self.tokenizer.vocab_size} entries, "
                f"but the model's decoder.vocab_size is {self.config.decoder.vocab_size}"
            )

    @property
    def limit(self) -> int:
        return min(self.max_tokens or self.config.decoder.max_seq_len, self.config.decoder.max_seq_len)

    @property
    def template(self) -> Template:
        return Template(self.tokenizer, self.config.processor, self.config.tokens_per_tile)

    def encode(self, record: Record, tile_counts: Sequence[int]) -> Example:
        """The training example of a record whose images have so many tiles each; RejectedRecord with the reason.

        A dialogue that is too long loses its last exchanges, never part of one.
        """
        return self.encode_noted(record, tile_counts)[0]

    def encode_noted(self, record: Record, tile_counts: Sequence[int]) -> tuple[Example, frozenset[str]]:
        """The training example as of `encode`, and the kinds of what was noticed about it beside the record's own."""
        whole = self.template.pieces(record, tile_counts)
        pieces = truncate(whole, self.limit)
        sequence = np.array([token for piece in pieces for token in piece.tokens], np.int32)
        said = np.repeat([piece.supervised for piece in pieces], [len(piece.tokens) for piece in pieces])
        self.require_whole(sequence, said, tile_counts)
        notes = {"cut_to_fit"} if len(pieces) < len(whole) else ()
        return example(sequence[:-1], np.where(said, sequence, NO_TARGET)[1:]), frozenset(notes)

    def require_whole(self, sequence: np.ndarray, said: np.ndarray, tile_counts: Sequence[int]) -> None:
        """RejectedRecord when what is left of a dialogue trains nothing, or lacks some of its images."""
        if not said.any():
            raise RejectedRecord(f"no answer that is trained is within the limit of {self.limit:,} tokens")
        shown = int((sequence == self.tokenizer.image_id).sum())
        if shown < sum(tile_counts) * self.config.tokens_per_tile:
            raise RejectedRecord(
                f"not all of its {len(tile_counts)} images are within the limit of {self.limit:,} tokens"
            )

    def prompt(self, record: Record, tile_counts: Sequence[int]) -> Example:
        """What the model is given to answer the record's last question; no position has a target."""
        tokens = np.array(self.template.prompt(record, tile_counts), np.int32)
        if not len(tokens):
            raise RejectedRecord("the prompt is empty: this conversation format needs an image")
        if len(tokens) >= self.limit:
            raise RejectedRecord(f"the prompt has {len(tokens):,} tokens, which leaves no room below {self.limit:,}")
        return example(tokens, np.full_like(tokens, NO_TARGET))


def example(tokens: np.ndarray, targets: np.ndarray) -> Example:
    """An Example under plain causal attention."""
    nothing = np.zeros_like(tokens)
    pos = np.arange(len(tokens), dtype=np.int32)
    return Example(tokens, targets.astype(np.int32), pos, nothing, nothing)


def truncate(pieces: Sequence[Piece], limit: int) -> list[Piece]:
    """The longest run of whole exchanges whose input (all tokens but the last) fits; RejectedRecord when none does."""
    kept: list[Piece] = []
    length = 0
    for question, answer in zip(pieces[::2], pieces[1::2], strict=True):
        exchange = len(question.tokens) + len(answer.tokens)
        if length + exchange - 1 > limit:
            break
        kept += [question, answer]
        length += exchange
    if not kept:
        needed = len(pieces[0].tokens) + len(pieces[1].tokens) - 1
        raise RejectedRecord(f"answer does not fit: the first exchange needs {needed:,} tokens, the limit is {limit:,}")
    return kept
