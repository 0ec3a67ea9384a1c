"""Characters are tokens, and each image is one place in front of the first question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mean_colour.settings import COLOUR, END, Architecture
from plm_model.media.images import decode_image
from plm_model.packs.example import NO_TARGET, Example, example
from plm_model.packs.stored import MediaFiles, Placeholder, StoredExample, StoreOptions
from plm_model.records.record import Record
from plm_model.records.turns import RecordError, pair_turns

FILES = ("config.json",)


@dataclass(frozen=True)
class Codec:
    architecture: Architecture
    placeholder = Placeholder(COLOUR, "<colour>", "colour", 1)

    def store(self, record: Record, files: MediaFiles, options: StoreOptions) -> StoredExample:
        if record.video is not None:
            raise RecordError("a video has no mean colour")
        media = [{"kind": "image", "data": files.read(path)} for path in record.images]
        for image in media:
            decode_image(image["data"])
        first = pair_turns(record.turns)[0]
        asked, said = question(first.question, len(media)), [*ids(first.answer), END]
        targets = [*[NO_TARGET] * (len(asked) - 1), *said]
        return StoredExample(example(np.array([*asked, *said][:-1], np.int32), np.array(targets)), media, len(media))

    def require_answerable(self, record: Record, text: str, files: Mapping[str, Path]) -> None:
        for path in record.images:
            decode_image(files[path].read_bytes())

    def length(self, text: str) -> int:
        return len(ids(text))

    def text(self, ids: Sequence[int], special: bool = True) -> str:
        return "".join(chr(token) for token in ids if token > END or special)


def ids(text: str) -> list[int]:
    return [byte for byte in text.encode("ascii", "replace") if byte > END]


def question(text: str, images: int) -> list[int]:
    return [COLOUR] * images + ids(text) + [ord("\n")]


def asked(text: str, images: int) -> Example:
    tokens = np.array(question(text, images), np.int32)
    return example(tokens, np.full_like(tokens, NO_TARGET))


def open_codec(directory: Path, architecture: Architecture, max_tokens: int | None = None) -> Codec:
    return Codec(architecture)


def smallest(architecture: Architecture, tokenizer: Path, record: Record) -> int:
    return 4
