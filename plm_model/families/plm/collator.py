"""Stored examples become packs: their media tiles, uint8 [N, 3, H, W] under the name `tiles`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from plm_model.families.plm.settings import TILES, PLMConfig
from plm_model.families.plm.tiles import tile_images
from plm_model.media.video import decode_frame
from plm_model.packs.example import NO_TARGET, Example, example
from plm_model.packs.stored import Item, MediaMismatch, WrongModel

if TYPE_CHECKING:
    from plm_model.packs.batch import Batch


@dataclass(frozen=True)
class Collator:
    """Reads what a shard keeps for a model of `config`, and lays examples end to end."""

    config: PLMConfig

    def item(self, id: str, example: Example, media: Sequence[Mapping[str, Any]]) -> Item:
        """An example with the tiles of its stored media: images are cut here, frames of a video were when they were stored.

        MediaMismatch or an error of the image when they cannot be used, WrongModel when they were stored for another.
        """
        tiles = tiles_of(media, self.config, id)
        require_placeholders(example, len(tiles), self.config, f"example {id}")
        return Item(id, example, {TILES: tiles})

    def blank(self, id: str) -> Item:
        """One token without target and without media, in the place of an example that cannot be read."""
        token = self._token()
        return Item(id, example(token, np.full(1, NO_TARGET)), {})

    def filler(self) -> Batch:
        """A pack of one target for a rank that has none: it runs every collective."""
        token = self._token()
        return self.batch([Item("", example(token, token), {})])

    def batch(self, items: Sequence[Item]) -> Batch:
        """The items as one pack; one without media gets a white tile, to which no placeholder refers."""
        from plm_model.packs.batch import laid_end_to_end

        side = self.config.vision.image_size
        white = {TILES: np.full((1, 3, side, side), 255, np.uint8)}
        return laid_end_to_end([item.example for item in items], [item.media for item in items], white)

    def _token(self) -> np.ndarray:
        return np.array([0 if self.config.image_token_id else 1], np.int32)


def collate(examples: Sequence[Example], tiles_list: Sequence[np.ndarray], config: PLMConfig) -> Batch:
    """Lay examples end to end, with their tiles (uint8 [tiles, 3, H, W] each; zero tiles for a text) in the same order.

    ValueError without examples, MediaMismatch when the image placeholders of one are not `tiles * tokens_per_tile`.
    """
    for index, (each, tiles) in enumerate(zip(examples, tiles_list, strict=True)):
        require_placeholders(each, len(tiles), config, f"example {index}")
    items = [Item("", each, {TILES: tiles}) for each, tiles in zip(examples, tiles_list, strict=True)]
    return Collator(config).batch(items)


def require_placeholders(example: Example, tiles: int, config: PLMConfig, name: str) -> None:
    """MediaMismatch, naming it, unless the example has exactly one image placeholder for each feature of its tiles."""
    found = int((example.tokens == config.image_token_id).sum())
    if found != tiles * config.tokens_per_tile:
        raise MediaMismatch(
            f"{name} has {found} image placeholders, but its {tiles} tiles of {config.tokens_per_tile} tokens "
            f"need {tiles * config.tokens_per_tile}"
        )


def tiles_of(media: Sequence[Mapping[str, Any]], config: PLMConfig, name: str) -> np.ndarray:
    """The tiles of an example's stored media, uint8 [tiles, 3, H, W]. WrongModel when they are of another size."""
    side = config.vision.image_size
    frames = [decode_frame(item["data"]) for item in media if item["kind"] == "frame"]
    if not frames:
        return tile_images([item["data"] for item in media], config.processor, side)
    if frames[0].shape != (3, side, side):
        raise WrongModel(
            f"example {name} holds frames of {frames[0].shape[1]} pixels, but the model's vision.image_size is {side}"
        )
    return np.stack(frames)


def open_collator(config: PLMConfig) -> Collator:
    """What makes a model's batches of what shards keep."""
    return Collator(config)
