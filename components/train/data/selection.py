"""Which examples of a data set are trained on: those that a pack can hold, of the sources that the datamix names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from components.errors import UserError
from components.shards.reader import Index
from components.train.data.datamix import choose_sources
from components.train.data.plan import Cost, PlanSpec
from components.train.data.rejected import Rejected

if TYPE_CHECKING:
    from components.train.settings import TrainConfig

MAX_TOO_LARGE = 0.01  # of all examples; the same share that preprocessing may reject


def plan_spec(index: Index, settings: TrainConfig, cost: Cost) -> tuple[PlanSpec, list[Rejected]]:
    """All that the order of the data depends on, and the examples that are left out because no pack holds them.

    Raises UserError naming the largest example when they are more than MAX_TOO_LARGE of all, and for a datamix that does
    not fit the data.
    """
    too_large = (index.tokens > settings.pack_tokens) | (index.media > settings.pack_media)
    left_out = np.flatnonzero(too_large)
    if len(left_out) > MAX_TOO_LARGE * len(index):
        raise UserError(
            f"{size_of_largest(index, settings)}, as {len(left_out)} of {len(index)} examples exceed a budget of a pack; "
            f"raise it, or preprocess again with smaller limits"
        )
    ids = index.ids(left_out) if len(left_out) else []
    rejected = [
        Rejected(id, index.source(n), *index.place(n), reason=oversize(index, settings, n))
        for id, n in zip(ids, left_out.tolist(), strict=True)
    ]
    spec = PlanSpec(
        tokens=index.tokens,
        media=index.media,
        sources=choose_sources(settings.datamix, index.source_names, index.source_codes, ~too_large),
        seed=settings.seed,
        pack_tokens=settings.pack_tokens,
        pack_media=settings.pack_media,
        packs_per_step=settings.packs_per_step,
        cost=cost,
    )
    return spec, rejected


def size_of_largest(index: Index, settings: TrainConfig) -> str:
    """Which example exceeds its budget most, and by how much."""
    largest = int(np.argmax(np.maximum(index.tokens / settings.pack_tokens, index.media / settings.pack_media)))
    (id,) = index.ids(np.array([largest]))
    return f"example {id} has {oversize(index, settings, largest)}"


def oversize(index: Index, settings: TrainConfig, number: int) -> str:
    """`99 tokens, more than train.pack_tokens=64`."""
    name = "tokens" if index.tokens[number] > settings.pack_tokens else "media"
    found, budget = int(getattr(index, name)[number]), f"pack_{name}"
    return f"{found} {name}, more than train.{budget}={getattr(settings, budget)}"
