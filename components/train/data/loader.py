"""The packs of each step, made ready for one rank ahead of the training: by a thread, or by processes of its own.

The order is that of the plan, whoever reads. An example that turns out corrupt is replaced by one token without a target, so
that the pack goes on and every rank runs the same collectives; it is named in the work. Errors of another kind, a disk that
is gone for one, are raised in the training.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch

from components.errors import UserError
from components.shards.reader import CorruptExample, Index, Place, ShardReader
from components.train.data.plan import PackPlan, PlannedStep
from components.train.data.rejected import Rejected
from plm_model.packs.batch import Batch
from plm_model.packs.stored import Item

T = TypeVar("T")
PACKS_AHEAD = 8  # packs that wait for the training, so that memory does not grow with the packs of a step
READ_AHEAD = 2  # packs that each loader process is given


@dataclass(frozen=True)
class MicroBatch:
    """One pack for one rank. `number` counts packs since the start of training; the weight of a filler is 0.

    `ids` and `sources` name the record and the data set of each document of the batch, in order; empty for a filler.
    `rejected` are the documents that count nothing because they could not be read.
    """

    batch: Batch
    number: int
    weight: float
    ids: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    rejected: tuple[Rejected, ...] = ()

    @property
    def supervised(self) -> int:
        """Targets that count."""
        return self.batch.supervised if self.weight else 0


@dataclass(frozen=True)
class StepWork:
    """What one rank does in one step, numbered from 1. `tokens` and `media` are those of the step over all ranks."""

    step: int
    epoch: float
    micro_batches: tuple[MicroBatch, ...]
    tokens: int
    media: int

    @property
    def rejected(self) -> tuple[Rejected, ...]:
        """Examples of this rank's packs that could not be read."""
        return tuple(example for micro in self.micro_batches for example in micro.rejected)


@dataclass(frozen=True)
class PackRequest:
    """What it takes to read a pack: where its examples lie and what sources they are of; no example for a filler."""

    number: int
    places: tuple[Place, ...]
    sources: tuple[str, ...]


def step_work(
    plan: PackPlan,
    index: Index,
    reader: ShardReader,
    *,
    rank: int,
    world: int,
    first: int,
    last: int,
    processes: int = 0,
    pin: torch.device | None = None,
) -> Iterator[StepWork]:
    """The work of a rank for the steps numbered `first`..`last`, read by so many processes (0: by the caller's thread).

    `pin` puts the batches into page-locked memory, from which this GPU copies while it computes.
    """

    def planned() -> Iterator[tuple[int, PlannedStep]]:
        return ((step, plan.step(step - 1)) for step in range(first, last + 1))

    requests = (
        PackRequest(number, tuple(map(index.place, pack or ())), tuple(map(index.source, pack or ())))
        for _, step in planned()
        for number, pack in step.of_rank(rank, world)
    )
    if pin is not None:
        torch.cuda.set_device(pin)  # the thread that reads ahead is at device 0, whatever the rank's is
    with contextlib.closing(read_packs(requests, reader, processes)) as packs:
        for step, work in planned():
            own = [next(packs) for _ in work.of_rank(rank, world)]
            if pin is not None:
                own = [replace(micro, batch=micro.batch.pin_memory()) for micro in own]
            yield StepWork(step, work.epoch, tuple(own), *sizes(plan, work))


def read_packs(
    requests: Iterable[PackRequest], reader: ShardReader, processes: int
) -> Generator[MicroBatch, None, None]:
    """The packs asked for, in that order."""
    if not processes:
        yield from (read_pack(reader, request) for request in requests)
        return
    from torch.utils.data import DataLoader

    # Spawned, because a fork of a process with threads, as torch and Ray have, may hang. A generator of its own leaves
    # torch's random state alone. Processes end with this one, by torch's watchdog.
    loader: DataLoader[MicroBatch | UserError] = DataLoader(
        PackReader(reader),  # type: ignore[arg-type]  # needs no more of a Dataset
        batch_size=None,
        sampler=requests,
        num_workers=processes,
        prefetch_factor=READ_AHEAD,
        multiprocessing_context="spawn",
        generator=torch.Generator(),
    )
    for read in loader:
        if isinstance(read, UserError):
            raise read
        yield read


@dataclass(frozen=True)
class PackReader:
    """A data set of packs, for torch's loader: its keys are requests.

    A UserError comes back as a value: raised, torch would put its process's traceback into the message.
    """

    reader: ShardReader

    def __getitem__(self, request: PackRequest) -> MicroBatch | UserError:
        try:
            return read_pack(self.reader, request)
        except UserError as error:
            return error


def read_pack(reader: ShardReader, request: PackRequest) -> MicroBatch:
    """A pack, read and collated; a filler if there is nothing to read, or nothing in it can be."""
    items: list[Item] = []
    rejected: list[Rejected] = []
    for place, source in zip(request.places, request.sources, strict=True):
        try:
            items.append(reader.read(place))
        except CorruptExample as error:
            rejected.append(Rejected(reader.id_of(place), source, *place, reason=str(error)))
            items.append(reader.collator.blank(rejected[-1].id))
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror or error} (row {place.row} of {place.shard})") from error
        except Exception as error:
            error.add_note(f"while reading row {place.row} of {place.shard}")
            raise
    if len(rejected) == len(items):
        return MicroBatch(reader.collator.filler(), request.number, 0.0, rejected=tuple(rejected))
    batch = reader.collator.batch(items)
    ids = tuple(item.id for item in items)
    return MicroBatch(batch, request.number, 1.0, ids, request.sources, tuple(rejected))


def steps_ahead(packs_per_step: int, world: int) -> int:
    """How many steps may wait for the training."""
    return max(1, PACKS_AHEAD // -(-packs_per_step // world))


def sizes(plan: PackPlan, planned: PlannedStep) -> tuple[int, int]:
    """Tokens and items of media of a step."""
    numbers = np.concatenate([np.asarray(pack) for pack in planned.packs])
    return int(plan.spec.tokens[numbers].sum()), int(plan.spec.media[numbers].sum())


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
        made = iter(items)
        try:
            for item in made:
                put("item", item)
                if stopped.is_set():
                    return
            put("end", None)
        except BaseException as error:
            put("error", error)
        finally:
            if hasattr(made, "close"):
                made.close()  # what reads for it ends now, not when it is forgotten

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
