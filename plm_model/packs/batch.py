"""Examples laid end to end without padding, as tensors.

Worked example: examples of 5 and 3 tokens give tokens [5 + 3], doc [1 1 1 1 1 2 2 2] and pos [0 1 2 3 4 0 1 2].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from plm_model.packs.example import ARRAYS, NO_TARGET, Example


@dataclass(frozen=True)
class Batch:
    """One pack as tensors.

    `tokens`, `targets` (-100 = not supervised), `pos`, `seg`, `group`, `doc` (1..n): int64 [T].
    `media`: what the family's codec makes of pictures and videos, by name; of each, the items of all examples in the order of
    their placeholders, along the first axis.
    """

    tokens: torch.Tensor
    targets: torch.Tensor
    pos: torch.Tensor
    seg: torch.Tensor
    group: torch.Tensor
    doc: torch.Tensor
    media: Mapping[str, torch.Tensor]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory."""
        return self._each(torch.Tensor.pin_memory)

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        arrays = {name: change(getattr(self, name)) for name in (*ARRAYS, "doc")}
        return Batch(**arrays, media={name: change(tensor) for name, tensor in self.media.items()})

    @property
    def supervised(self) -> int:
        """How many positions have a target."""
        return int((self.targets != NO_TARGET).sum())


def laid_end_to_end(
    examples: Sequence[Example], media: Sequence[Mapping[str, np.ndarray]], filler: Mapping[str, np.ndarray]
) -> Batch:
    """A batch of examples with their media, in the same order. ValueError without examples.

    `filler` stands for the media of a pack that has none of a name, so that every rank runs what turns media into features.
    """
    if not examples:
        raise ValueError("a pack needs at least one example")

    def laid(name: str) -> torch.Tensor:
        return torch.from_numpy(np.concatenate([getattr(example, name) for example in examples]).astype(np.int64))

    def shown(name: str) -> torch.Tensor:
        found = [each[name] for each in media if name in each and len(each[name])]
        return torch.from_numpy(np.concatenate(found or [filler[name]]))

    lengths = [example.length for example in examples]
    return Batch(
        **{name: laid(name) for name in ARRAYS},
        doc=torch.from_numpy(np.repeat(np.arange(1, len(lengths) + 1), lengths)),
        media={name: shown(name) for name in filler},
    )
