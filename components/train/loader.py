"""The packs of each step, made ready for one rank by a thread that stays a few steps ahead of the training."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from components.train.plan import Pack, PackPlan, PlannedStep
from components.train.shards import ShardReader
from plm_model.codec import example as causal_example
from plm_model.config import PLMConfig
from plm_model.pack import Batch, collate

T = TypeVar("T")


@dataclass(frozen=True)
class MicroBatch:
    """One pack for one rank. `number` counts packs since the start of training; the weight of a filler is 0.

    `ids` and `sources` name the record and the data set of each document of the batch, in order; empty for a filler.
    """

    batch: Batch
    number: int
    weight: float
    ids: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def supervised(self) -> int:
        """Targets that count."""
        return self.batch.supervised if self.weight else 0


@dataclass(frozen=True)
class StepWork:
    """What one rank does in one step, numbered from 1. `tokens` and `tiles` are those of the step over all ranks."""

    step: int
    epoch: float
    micro_batches: tuple[MicroBatch, ...]
    tokens: int
    tiles: int


def step_work(
    plan: PackPlan, reader: ShardReader, config: PLMConfig, *, rank: int, world: int, first: int, last: int
) -> Iterator[StepWork]:
    """The work of a rank for the steps numbered `first`..`last`."""
    filler = filler_batch(config)
    for step in range(first, last + 1):
        planned = plan.step(step - 1)
        micro_batches = tuple(
            MicroBatch(filler, number, 0.0) if pack is None else read_pack(reader, pack, number, config)
            for number, pack in planned.of_rank(rank, world)
        )
        yield StepWork(step, planned.epoch, micro_batches, *sizes(plan, planned))


def read_pack(reader: ShardReader, pack: Pack, number: int, config: PLMConfig) -> MicroBatch:
    """The pack numbered `number` since the start of training, read and collated."""
    examples, tiles = zip(*(reader.read(example) for example in pack), strict=True)
    index = reader.index
    ids, sources = tuple(index.ids[n] for n in pack), tuple(index.sources[n] for n in pack)
    return MicroBatch(collate(examples, tiles, config), number, 1.0, ids, sources)


def sizes(plan: PackPlan, planned: PlannedStep) -> tuple[int, int]:
    """Tokens and tiles of a step."""
    numbers = np.concatenate([np.asarray(pack) for pack in planned.packs])
    return int(plan.tokens[numbers].sum()), int(plan.tiles[numbers].sum())


def filler_batch(config: PLMConfig) -> Batch:
    """A pack of one target for a rank that has none: it runs every collective, and counts nothing."""
    token = np.array([0 if config.image_token_id else 1], np.int32)
    return collate([causal_example(token, token)], [np.zeros((0, 3, 1, 1), np.uint8)], config)


@contextlib.contextmanager
def prefetched(items: Iterable[T], depth: int) -> Iterator[Iterator[T]]:
    """Iterate over `items` made by a thread that is at most `depth` ahead; its error is raised here. Ends with the block."""
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(kind: str, value: Any) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                return ready.put((kind, value), timeout=0.1)

    def produce() -> None:
        try:
            for item in items:
                put("item", item)
                if stopped.is_set():
                    return
            put("end", None)
        except BaseException as error:
            put("error", error)

    def consume() -> Iterator[T]:
        while (taken := ready.get())[0] == "item":
            yield taken[1]
        if taken[0] == "error":
            raise taken[1]

    thread = threading.Thread(target=produce, name="loader", daemon=True)
    thread.start()
    try:
        yield consume()
    finally:
        stopped.set()
        thread.join(timeout=10)
