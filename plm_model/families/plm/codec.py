"""A Record becomes an Example: the integers that a PLM is trained on, or prompted with.

Worked example, with 1 placeholder for the image and `Which digit?` answered by `7`:

    sequence  BOS ... user-header IMG Which digit ? eot  assistant-header 7 eot EOS
    tokens    all but the last
    targets   targets[i] = sequence[i + 1] where the assistant says that (its header, text, eot and EOS), else -100
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from plm_model.families.plm.conversation import ChatTemplate, Piece
from plm_model.families.plm.settings import PLMConfig
from plm_model.families.plm.shown import asked_tiles, shown
from plm_model.families.plm.tokenizer import SPECIALS, Tokenizer
from plm_model.packs.example import NO_TARGET, Example, example
from plm_model.packs.stored import MediaFiles, Placeholder, StoredExample, StoreOptions
from plm_model.records.record import Record, Turn
from plm_model.records.turns import IMAGE_TAG, RecordError, require_unicode

FILES = ("processor_config.json", "tokenizer.json")  # of a model directory: what its codec depends on


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
    def template(self) -> ChatTemplate:
        return ChatTemplate(self.tokenizer, self.config.processor, self.config.tokens_per_tile)

    def encode(self, record: Record, tile_counts: Sequence[int]) -> Example:
        """The training example of a record whose images have so many tiles each; RecordError with the reason.

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
        """RecordError when what is left of a dialogue trains nothing, or lacks some of its images."""
        if not said.any():
            raise RecordError(f"no answer that is trained is within the limit of {self.limit:,} tokens")
        shown = int((sequence == self.tokenizer.image_id).sum())
        if shown < sum(tile_counts) * self.config.tokens_per_tile:
            raise RecordError(f"not all of its {len(tile_counts)} images are within the limit of {self.limit:,} tokens")

    def store(self, record: Record, files: MediaFiles, options: StoreOptions) -> StoredExample:
        """What a shard keeps of a record. RecordError, ImageError or VideoError when it cannot be used."""
        found = shown(record, files, options, self.config)
        encoded, notes = self.encode_noted(record, found.tiles)
        return StoredExample(encoded, found.media, sum(found.tiles), found.frames, found.notes | notes)

    def require_answerable(self, record: Record, question: str, files: Mapping[str, Path]) -> None:
        """The errors of `store` when a question about a record's media cannot be put; `files` maps their paths to files."""
        self.question(question, asked_tiles(record, files, self.config))

    def question(self, text: str, tile_counts: Sequence[int]) -> Example:
        """A question about media of so many tiles each, as a prompt.

        As many `<image>` tags as there are media, or tiles, stand where these belong; any other number is taken out.
        """
        tags = text.count(IMAGE_TAG)
        if tags == sum(tile_counts) > 1:
            tile_counts = [1] * tags
        elif len(tile_counts) > 1 and tags != len(tile_counts):
            text = IMAGE_TAG * len(tile_counts) + text.replace(IMAGE_TAG, "")
        require_unicode(text, "question")
        names = tuple(str(number) for number in range(len(tile_counts)))
        return self.prompt(Record("question", names, (Turn("human", text),), row={}), tile_counts)

    def length(self, text: str) -> int:
        """Tokens of a text."""
        return len(self.tokenizer.encode(text))

    def text(self, ids: Sequence[int], special: bool = True) -> str:
        """The text of ids, with or without the special tokens."""
        return self.tokenizer.decode(ids, skip_special=not special)

    @property
    def placeholder(self) -> Placeholder:
        """The token in whose place features of media stand."""
        return Placeholder(self.tokenizer.image_id, SPECIALS["image_id"], "tile", self.config.tokens_per_tile)

    def prompt(self, record: Record, tile_counts: Sequence[int]) -> Example:
        """What the model is given to answer the record's last question; no position has a target."""
        tokens = np.array(self.template.prompt(record, tile_counts), np.int32)
        if not len(tokens):
            raise RecordError("the prompt is empty: this conversation format needs an image")
        if len(tokens) >= self.limit:
            raise RecordError(f"the prompt has {len(tokens):,} tokens, which leaves no room below {self.limit:,}")
        return example(tokens, np.full_like(tokens, NO_TARGET))


def truncate(pieces: Sequence[Piece], limit: int) -> list[Piece]:
    """The longest run of whole exchanges whose input (all tokens but the last) fits; RecordError when none does."""
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
        raise RecordError(f"answer does not fit: the first exchange needs {needed:,} tokens, the limit is {limit:,}")
    return kept


def open_codec(directory: Path, architecture: PLMConfig, max_tokens: int | None = None) -> Codec:
    """The codec of a model directory of that architecture. ValueError when its tokenizer is not the model's."""
    return Codec(Tokenizer.from_file(directory), architecture, max_tokens)


def smallest(architecture: PLMConfig, tokenizer: Path, record: Record) -> int:
    """Tokens of a record with one picture, which is one tile. ValueError when the tokenizer is not the model's."""
    return Codec(Tokenizer.from_file(tokenizer), architecture).encode(record, [1]).length
