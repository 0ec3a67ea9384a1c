"""Stored images become their mean colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mean_colour.settings import COLOUR, END, Architecture
from plm_model.media.images import decode_image
from plm_model.packs.example import NO_TARGET, Example, example
from plm_model.packs.stored import Item, MediaMismatch

if TYPE_CHECKING:
    from PIL import Image

    from plm_model.packs.batch import Batch


def mean(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"), np.float32).mean((0, 1)) / 255


def colours(images: Sequence[Image.Image]) -> np.ndarray:
    return np.stack([mean(image) for image in images]) if images else np.zeros((0, 3), np.float32)


@dataclass(frozen=True)
class Collator:
    architecture: Architecture

    def item(self, id: str, stored: Example, media: Sequence[Mapping[str, Any]]) -> Item:
        if int((stored.tokens == COLOUR).sum()) != len(media):
            raise MediaMismatch(f"example {id} has {len(media)} images, and another number of places for them")
        return Item(id, stored, {"colours": colours([decode_image(each["data"]) for each in media])})

    def blank(self, id: str) -> Item:
        return Item(id, example(np.array([END], np.int32), np.full(1, NO_TARGET)), {})

    def filler(self) -> Batch:
        one = np.array([END], np.int32)
        return self.batch([Item("", example(one, one), {})])

    def batch(self, items: Sequence[Item]) -> Batch:
        from plm_model.packs.batch import laid_end_to_end

        nothing = {"colours": np.zeros((1, 3), np.float32)}
        return laid_end_to_end([item.example for item in items], [item.media for item in items], nothing)


def open_collator(architecture: Architecture) -> Collator:
    return Collator(architecture)
