"""Who answers: the model in this process, or as many Ray actors as the config says, a chunk each at a time.

Chunks are the same however many answer, and so are their batches: the answers are the same to the last bit.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from components.evaluate.answering.ask import Ask, Said
from components.evaluate.answering.kept import KeptAnswers

BATCHES_A_CHUNK = 4  # so many are sorted by length together, and lost at most when a process is killed

Chunk = Callable[[], Sequence[Ask]]  # made when it is its turn: decoded images of all questions are more than fits
Answers = Callable[[Sequence[Chunk]], Iterator[tuple[int, list[Said]]]]  # place of the chunk, its answers


@dataclass
class Progress:
    """How many questions were asked, for how many of them there was an answer already, and how many were answered.

    `seconds` are those that all of the answers took, whenever they were computed.
    """

    asked: int = 0
    kept: int = 0
    answered: int = 0
    seconds: float = 0.0


def answers(
    n: int,
    ask: Callable[[int], Ask],
    kept: KeptAnswers,
    pool: Answers,
    batch_size: int,
    say: Callable[[int, int], None],
    progress: Progress,
) -> list[Said]:
    """The answers to n questions: those that are kept as they are, the others by whole chunks, committed one by one."""
    keys = [ask(place).key for place in range(n)]
    said = [kept.get(key) for key in keys]
    size = batch_size * BATCHES_A_CHUNK
    places = [range(start, min(start + size, n)) for start in range(0, n, size)]
    missing = [chunk for chunk in places if any(said[place] is None for place in chunk)]
    done = n - sum(len(chunk) for chunk in missing)
    progress.asked += n
    progress.kept += done
    say(done, n)
    began = time.monotonic()
    for number, found in pool([partial(_asks, ask, chunk) for chunk in missing]):
        chunk = missing[number]
        each, began = (time.monotonic() - began) / len(chunk), time.monotonic()
        kept.commit({keys[place]: answer for place, answer in zip(chunk, found, strict=True)}, each)
        for place, answer in zip(chunk, found, strict=True):
            said[place] = answer
        done += len(chunk)
        progress.answered += len(chunk)
        say(done, n)
    progress.seconds += sum(map(kept.seconds, keys))
    return [answer for answer in said if answer is not None]


def _asks(ask: Callable[[int], Ask], places: range) -> list[Ask]:
    return [ask(place) for place in places]


@contextlib.contextmanager
def pool_of(directory: Path, device: str, batch_size: int, workers: int, address: str | None) -> Iterator[Answers]:
    """Whoever answers: this process, or `workers` Ray actors, each with a GPU of its own where the device is one."""
    if workers == 1:
        yield in_this_process(directory, device, batch_size)
        return
    import ray

    # Its own Ray is "local", else it would join whichever happens to run on this machine.
    own = {"address": "local", "num_cpus": workers, "include_dashboard": False}
    ray.init(**({"address": address} if address else own), log_to_driver=False)
    try:
        yield by_actors(directory, device, batch_size, workers)
    finally:
        ray.shutdown()


def in_this_process(directory: Path, device: str, batch_size: int) -> Answers:
    """The model is loaded with the first chunk that needs it."""
    loaded: list[Any] = []

    def ask(chunks: Sequence[Chunk]) -> Iterator[tuple[int, list[Said]]]:
        from components.evaluate.answering.model import AnsweringModel

        if chunks and not loaded:
            loaded.append(AnsweringModel(directory, device, batch_size))
        yield from enumerate(loaded[0].answer_all(chunks) if chunks else ())

    return ask


def by_actors(directory: Path, device: str, batch_size: int, workers: int) -> Answers:
    """Each actor has the next chunk as soon as it is through with one."""
    import ray

    from components.evaluate.answering.model import AnsweringModel, chosen_device

    gpus = 1 if chosen_device(device).type == "cuda" else 0
    actor = ray.remote(num_cpus=1, num_gpus=gpus)(AnsweringModel)
    started: list[Any] = []

    def ask(chunks: Sequence[Chunk]) -> Iterator[tuple[int, list[Said]]]:
        if chunks and not started:
            started.extend(actor.remote(directory, device, batch_size, 1) for _ in range(workers))
        yield from handed_out(started, chunks)

    return ask


def handed_out(actors: Sequence[Any], chunks: Sequence[Chunk]) -> Iterator[tuple[int, list[Said]]]:
    """Chunks to whichever actor is free; answers as they come."""
    import ray

    waiting = iter(enumerate(chunks))
    busy: dict[Any, tuple[Any, int]] = {}

    def hand(actor: Any, to_do: Iterable[tuple[int, Chunk]]) -> None:
        for number, chunk in to_do:
            busy[actor.answer.remote(chunk())] = (actor, number)
            return

    for actor in actors:
        hand(actor, waiting)
    while busy:
        (ready, *_), _ = ray.wait(list(busy), num_returns=1)
        actor, number = busy.pop(ready)
        hand(actor, waiting)
        yield number, ray.get(ready)
