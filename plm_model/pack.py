"""Examples laid end to end without padding.

Worked example: examples of 5 and 3 tokens give tokens [5 + 3], doc [1 1 1 1 1 2 2 2] and pos [0 1 2 3 4 0 1 2].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch

from plm_model.codec import Example
from plm_model.config import PLMConfig


class MediaMismatch(ValueError):
    """The image placeholders and the features of the tiles differ in number; the message says both."""


@dataclass(frozen=True)
class Batch:
    """One pack as tensors.

    `tokens`, `targets` (-100 = not supervised), `pos`, `seg`, `group`, `doc` (1..n): int64 [T].
    `tiles`: uint8 [N, 3, H, W] in the order of the image placeholders; at least one, white when no example has media.
    """

    tokens: torch.Tensor
    targets: torch.Tensor
    pos: torch.Tensor
    seg: torch.Tensor
    group: torch.Tensor
    doc: torch.Tensor
    tiles: torch.Tensor

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch(**{field.name: getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)})

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory."""
        return Batch(**{field.name: getattr(self, field.name).pin_memory() for field in fields(self)})

    @property
    def supervised(self) -> int:
        """How many positions have a target."""
        return int((self.targets != -100).sum())


def collate(examples: Sequence[Example], tiles_list: Sequence[np.ndarray], config: PLMConfig) -> Batch:
    """Lay examples end to end, with their tiles (uint8 [tiles, 3, H, W] each; zero tiles for a text) in the same order.

    A pack without media gets one white tile, so that the vision tower runs on every rank; no placeholder refers to it.
    ValueError without examples, MediaMismatch when the image placeholders of one are not `tiles * tokens_per_tile`.
    """
    if not examples:
        raise ValueError("a pack needs at least one example")
    for index, (example, tiles) in enumerate(zip(examples, tiles_list, strict=True)):
        require_placeholders(example, len(tiles), config, f"example {index}")
    side = config.vision.image_size
    media = [tiles for tiles in tiles_list if len(tiles)] or [np.full((1, 3, side, side), 255, np.uint8)]

    def laid(name: str) -> torch.Tensor:
        return torch.from_numpy(np.concatenate([getattr(example, name) for example in examples]).astype(np.int64))

    lengths = [example.length for example in examples]
    return Batch(
        **{name: laid(name) for name in ("tokens", "targets", "pos", "seg", "group")},
        doc=torch.from_numpy(np.repeat(np.arange(1, len(lengths) + 1), lengths)),
        tiles=torch.from_numpy(np.concatenate(media)),
    )


def require_placeholders(example: Example, tiles: int, config: PLMConfig, name: str) -> None:
    """MediaMismatch, naming it, unless the example has exactly one image placeholder for each feature of its tiles."""
    found = int((example.tokens == config.image_token_id).sum())
    if found != tiles * config.tokens_per_tile:
        raise MediaMismatch(
            f"{name} has {found} image placeholders, but its {tiles} tiles of {config.tokens_per_tile} tokens "
            f"need {tiles * config.tokens_per_tile}"
        )
