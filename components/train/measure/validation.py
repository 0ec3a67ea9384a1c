"""The loss on the test split: the same packs each time, every target of all ranks equally weighted, nothing else changed.

The model runs without drop path and without gradient; no random number is drawn, so a training that validates takes the
same steps as one that does not. Ranks take turns with the packs; one that has none left runs a filler, which counts nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from components.artifacts.artifact import Artifact
from components.errors import UserError
from components.shards.reader import ShardReader, read_index
from components.train.data.loader import MicroBatch, PackRequest, prefetched, read_pack
from components.train.data.packing import deal
from components.train.model.parallel import Group
from components.train.settings import TrainConfig
from plm_model.family import Collator

INDEX = "test/index.parquet"
PACKS_AHEAD = 2


@dataclass(frozen=True)
class Validation:
    """`read(n)` gives pack n of `packs` (numbers of examples of the test split)."""

    packs: Sequence[Sequence[int]]
    read: Callable[[int], MicroBatch]
    collator: Collator

    @classmethod
    def of(cls, shards: Artifact, reader: ShardReader, settings: TrainConfig) -> Validation:
        """Over the test split of a data set, in packs as large as those of the training."""
        index = read_index(shards.local(INDEX))
        packs = packs_of(index.tokens, index.media, settings.pack_tokens, settings.pack_media)

        def read(number: int) -> MicroBatch:
            rows = packs[number]
            return read_pack(reader, PackRequest(number, tuple(map(index.place, rows)), tuple(map(index.source, rows))))

        return cls(packs, read, reader.collator)

    @torch.no_grad()
    def loss(self, model: nn.Module, group: Group) -> float:
        """Mean cross entropy over all targets. Every rank calls it; the model is in training mode afterwards."""
        rounds = -(-len(self.packs) // group.world)
        turns = (self._of(turn * group.world + group.rank) for turn in range(rounds))
        total = torch.zeros((), dtype=torch.float64, device=group.device)
        targets = 0
        model.eval()
        with prefetched(turns, PACKS_AHEAD) as ready:
            for micro in ready:
                total += model(micro.batch).double().sum() * micro.weight
                targets += micro.supervised
        model.train()
        loss_sum, count = group.sum(float(total), targets)
        if not count:
            raise UserError(
                "train.validate_every: no example of the test split can be used: none fits into train.pack_tokens "
                "and train.pack_media, or none can be read"
            )
        return loss_sum / count

    def _of(self, number: int) -> MicroBatch:
        if number < len(self.packs):
            return self.read(number)
        return MicroBatch(self.collator.filler(), number, 0.0)


def require_test_split(shards: Artifact, settings: TrainConfig) -> None:
    """UserError when a validation is asked for that the data set has nothing for."""
    if settings.validate_every and INDEX not in shards.files:
        raise UserError(
            "train.validate_every: the data set has no test split; raise convert.test_fraction, or leave it out"
        )


def packs_of(tokens: np.ndarray, media: np.ndarray, pack_tokens: int, pack_media: int) -> list[list[int]]:
    """Examples of these sizes in packs of like size, as in training; those that no pack can hold are left out."""
    fit = np.flatnonzero((tokens <= pack_tokens) & (media <= pack_media))
    if not len(fit):
        return []
    sizes = tokens[fit].astype(np.int64)
    pack_of, packs = deal(sizes, media[fit].astype(np.int64), sizes, pack_tokens, pack_media)
    return [fit[pack_of == pack].tolist() for pack in range(packs)]
