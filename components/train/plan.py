"""Which examples make up which optimizer step: a pure function of the index, the settings and the number of the step.

An epoch is a shuffle by (seed, epoch), cut into packs; `packs_per_step` packs follow each other into a step, across the
ends of epochs too. So a run that resumes, on whatever number of workers, sees what the uninterrupted one would have seen.

Worked example: an epoch of 5 packs a..e and 2 packs per step give the steps (a b) (c d) (e a') (b' c') ..., where a' is
the first pack of the next shuffle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from plm_model.pack import pack_lengths

Pack = tuple[int, ...]  # numbers of examples: rows of the index


@dataclass(frozen=True)
class PlannedStep:
    """The packs of one optimizer step over all ranks.

    `first_pack` numbers its first pack since the start of training; `epoch` is how much of the data was seen before it.
    """

    packs: tuple[Pack, ...]
    first_pack: int
    epoch: float

    def of_rank(self, rank: int, world: int) -> tuple[tuple[int, Pack | None], ...]:
        """(number, pack) for each micro-step of a rank; equally many for every rank, None where no pack is left."""
        rounds = -(-len(self.packs) // world)
        places = range(rank, rounds * world, world)
        return tuple((self.first_pack + p, self.packs[p] if p < len(self.packs) else None) for p in places)


class PackPlan:
    """The packs of all steps. `tokens` and `tiles` give the size of each example.

    ValueError when there is no example, or one exceeds a budget alone.
    """

    def __init__(
        self,
        tokens: Sequence[int],
        tiles: Sequence[int],
        *,
        seed: int,
        pack_tokens: int,
        pack_tiles: int,
        packs_per_step: int,
    ) -> None:
        if not len(tokens):
            raise ValueError("there is no example to train on")
        self.tokens = np.asarray(tokens, np.int64)
        self.tiles = np.asarray(tiles, np.int64)
        self.seed = seed
        self.pack_tokens = pack_tokens
        self.pack_tiles = pack_tiles
        self.packs_per_step = packs_per_step
        self._starts = [0]  # number of the first pack of each epoch known so far
        self._recent: dict[int, list[Pack]] = {}

    @cached_property
    def digest(self) -> str:
        """Hex sha256 of everything that the order of the data depends on."""
        sha = hashlib.sha256(self.tokens.tobytes() + self.tiles.tobytes())
        sha.update(repr((self.seed, self.pack_tokens, self.pack_tiles, self.packs_per_step)).encode())
        return sha.hexdigest()

    def epoch(self, epoch: int) -> list[Pack]:
        """All packs of an epoch: every example in exactly one of them."""
        if epoch not in self._recent:
            order = np.random.Generator(np.random.Philox(key=[self.seed, epoch])).permutation(len(self.tokens))
            sizes = self.tokens[order].tolist(), self.tiles[order].tolist()
            packs = pack_lengths(*sizes, self.pack_tokens, self.pack_tiles)
            self._recent = {e: p for e, p in self._recent.items() if e == epoch - 1}
            self._recent[epoch] = [tuple(order[pack].tolist()) for pack in packs]
        return self._recent[epoch]

    def step(self, step: int) -> PlannedStep:
        """The packs of the step numbered `step`, counted from 0."""
        first = step * self.packs_per_step
        places = [self._locate(first + n) for n in range(self.packs_per_step)]
        packs = tuple(self.epoch(epoch)[place] for epoch, place in places)
        epoch, place = places[0]
        return PlannedStep(packs, first, epoch + place / len(self.epoch(epoch)))

    def _locate(self, pack: int) -> tuple[int, int]:
        """Epoch and place in it of a pack numbered since the start of training."""
        while self._starts[-1] <= pack:
            self._starts.append(self._starts[-1] + len(self.epoch(len(self._starts) - 1)))
        epoch = int(np.searchsorted(self._starts, pack, side="right")) - 1
        return epoch, pack - self._starts[epoch]
