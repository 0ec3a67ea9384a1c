"""Which examples make up which optimizer step: a pure function of the index, the settings and the number of the step.

Examples are drawn in the shares of the datamix, each source shuffled anew for every epoch of it. Draws are cut into chunks,
a chunk is dealt to packs, its packs are shuffled, and `packs_per_step` packs that follow each other are a step, across the
ends of chunks and epochs. So a run that resumes, on whatever number of workers, sees what the uninterrupted one would have
seen.

Worked example: an epoch of 5 packs a..e and 2 packs per step give the steps (a b) (c d) (e a') (b' c') ..., where a' is
the first pack of the next shuffle. The packs of a step stand in the order of their costs, and ranks take turns: costs 9 8 5 1
on 2 ranks run as (9 8) (5 1). Ranks wait for each other in every round, so that takes 9 + 5; as 9 5 8 1 it would be 9 + 8.
The order is the same on any number of ranks.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from components.train.data.datamix import MixSource, shares
from components.train.data.packing import deal
from components.train.data.shuffle import draws, mixed, permuted

if TYPE_CHECKING:
    from plm_model.nn.cost import StepCost

CHUNK_STEPS = 32  # steps whose packs are made together: few enough for the shares to hold in any 1,000 steps
CHUNK_PACKS = (128, 1024)  # at least, to be alike and full; at most, which is fastest
VERSION = 3  # changes with the order of the data that the same settings give

Pack = tuple[int, ...]  # numbers of examples: rows of the index


@dataclass(frozen=True)
class Cost:
    """What a pack costs to train, in any unit: per token, per squared length of an example, per item of media."""

    token: int = 1
    squared_length: int = 0
    media: int = 0

    def of(self, tokens: np.ndarray, media: np.ndarray) -> np.ndarray:
        """Cost of each example: int64 [n]."""
        tokens, media = tokens.astype(np.int64), media.astype(np.int64)
        costs: np.ndarray = self.token * tokens + self.squared_length * tokens * tokens + self.media * media
        return costs


def whole_cost(cost: StepCost) -> Cost:
    """A model's FLOPs in whole numbers, so that a plan is the same on every machine."""
    return Cost(round(cost.token), round(cost.squared_length), round(cost.media))


@dataclass(frozen=True)
class PlannedStep:
    """The packs of one optimizer step over all ranks, the costliest first.

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


@dataclass(frozen=True, eq=False)
class PlanSpec:
    """All that the order of the data depends on. `tokens` and `media` (int [rows]) give the size of each row of the index.

    Every row of the sources fits a pack alone.
    """

    tokens: np.ndarray
    media: np.ndarray
    sources: tuple[MixSource, ...]
    seed: int
    pack_tokens: int
    pack_media: int
    packs_per_step: int
    cost: Cost = Cost()

    @cached_property
    def digest(self) -> str:
        """Hex sha256 of the plan: two that are equal train on the same packs in the same steps."""
        sha = hashlib.sha256()
        for array in (self.tokens, self.media, *(source.rows for source in self.sources)):
            sha.update(f"{array.dtype.str}{len(array)}".encode() + b"\n")
            sha.update(np.ascontiguousarray(array).data)
        mix = [(source.name, str(source.weight)) for source in self.sources]
        settings = (self.seed, self.pack_tokens, self.pack_media, self.packs_per_step, self.cost, mix, VERSION)
        sha.update(repr(settings).encode())
        return sha.hexdigest()

    @property
    def examples(self) -> int:
        """Rows of all sources: an epoch."""
        return sum(len(source.rows) for source in self.sources)

    @cached_property
    def chunk(self) -> int:
        """Draws that are packed together: those that fill about CHUNK_STEPS steps, within the bounds of CHUNK_PACKS."""
        packs = min(max(CHUNK_STEPS * self.packs_per_step, CHUNK_PACKS[0]), CHUNK_PACKS[1])
        fill = 0.0  # of a pack by an average draw
        for sizes, budget in ((self.tokens, self.pack_tokens), (self.media, self.pack_media)):
            mean = sum(float(s.weight) * int(sizes[s.rows].sum(dtype=np.int64)) / len(s.rows) for s in self.sources)
            fill = max(fill, mean / budget)
        return max(packs, int(packs / fill))

    def cuts(self) -> Iterator[tuple[int, int]]:
        """First and last + 1 draw of each chunk, without end. With one source, epochs end where chunks do."""
        if len(self.sources) > 1:
            yield from ((n * self.chunk, (n + 1) * self.chunk) for n in itertools.count())
        size = self.examples
        pieces = max(1, round(size / self.chunk))
        for epoch in itertools.count():
            ends = [epoch * size + n * size // pieces for n in range(pieces + 1)]
            yield from itertools.pairwise(ends)

    def drawn(self, first: int, stop: int) -> np.ndarray:
        """Rows of the index that the draws `first`..`stop - 1` are, source by source: uint32."""
        weights = [source.weight for source in self.sources]
        spans = zip(shares(weights, first), shares(weights, stop), strict=True)
        rows = [
            source.rows[draws(start, end, len(source.rows), seed=self.seed, source=number)]
            for number, (source, (start, end)) in enumerate(zip(self.sources, spans, strict=True))
        ]
        return np.concatenate(rows)

    def packed(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The packs chunk by chunk, without end: rows of the index (uint32) pack after pack, and how many each pack has."""
        for number, (first, stop) in enumerate(self.cuts()):
            rows = self.drawn(first, stop)
            tokens, media = self.tokens[rows].astype(np.int64), self.media[rows].astype(np.int64)
            pack_of, packs = deal(tokens, media, self.cost.of(tokens, media), self.pack_tokens, self.pack_media)
            places = np.arange(packs, dtype=np.uint64)
            key = np.broadcast_to(mixed(self.seed, -1, number), places.shape)
            pack_of = permuted(places, np.full_like(places, packs), key).astype(np.int64)[pack_of]
            yield rows[np.argsort(pack_of, kind="stable")], np.bincount(pack_of, minlength=packs)


@dataclass(frozen=True, eq=False)
class PackPlan:
    """The packs of the first `steps` steps: `rows` pack after pack, pack n being rows[starts[n]:starts[n + 1]].

    The arrays may be mapped files: any step is found at once.
    """

    spec: PlanSpec
    rows: np.ndarray
    starts: np.ndarray

    @classmethod
    def make(cls, spec: PlanSpec, steps: int) -> PackPlan:
        """Plan so many steps, in memory."""
        rows, sizes = zip(*first_packs(spec, steps * spec.packs_per_step), strict=True)
        starts = np.concatenate([[0], np.cumsum(np.concatenate(sizes))])
        return cls(spec, np.concatenate(rows), starts)

    @property
    def digest(self) -> str:
        return self.spec.digest

    @property
    def steps(self) -> int:
        return (len(self.starts) - 1) // self.spec.packs_per_step

    def step(self, step: int) -> PlannedStep:
        """The packs of the step numbered `step`, counted from 0. IndexError beyond the steps that were planned."""
        if not 0 <= step < self.steps:
            raise IndexError(f"step {step} is not planned; the plan has {self.steps} steps")
        first = step * self.spec.packs_per_step
        starts = self.starts[first : first + self.spec.packs_per_step + 1]
        rows = np.asarray(self.rows[starts[0] : starts[-1]])
        inner = np.asarray(starts - starts[0])
        costs = np.add.reduceat(self.spec.cost.of(self.spec.tokens[rows], self.spec.media[rows]), inner[:-1])
        packs = [tuple(pack.tolist()) for pack in np.split(rows, inner[1:-1])]
        by_cost = np.argsort(-costs, kind="stable").tolist()
        return PlannedStep(tuple(packs[n] for n in by_cost), first, float(starts[0]) / self.spec.examples)


def steps_of_epochs(spec: PlanSpec, epochs: float) -> int:
    """Optimizer steps that go so often through as many draws as there are examples; at least one.

    Worked example: 1,000 examples in 130 packs, 2 packs a step: 65 steps are an epoch, 98 are 1.5.
    """
    left, packs = spec.examples, 0
    for _, sizes in spec.packed():
        ends = np.cumsum(sizes)
        if ends[-1] >= left:
            packs += int(np.searchsorted(ends, left)) + 1
            break
        left, packs = left - int(ends[-1]), packs + len(sizes)
    return max(1, math.ceil(packs * epochs / spec.packs_per_step))


def first_packs(spec: PlanSpec, packs: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The first so many packs, chunk by chunk: rows (uint32) and sizes as `PlanSpec.packed` gives them."""
    for rows, sizes in spec.packed():
        if len(sizes) >= packs:
            yield rows[: int(sizes[:packs].sum())], sizes[:packs]
            return
        yield rows, sizes
        packs -= len(sizes)
