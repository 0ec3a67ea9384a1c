"""A model that answers chunks of questions: media are decoded ahead, questions of like length share a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from components.evaluate.answering.ask import Ask, ImageFile, Said, Shown
from components.processes.machine import usable_cores
from plm_model.family import part
from plm_model.media.image_file import ImageError
from plm_model.media.video import VideoError
from plm_model.model_directory.description import family_at
from plm_model.records.record import RecordError

AHEAD = 1  # chunks whose media are decoded while another is answered

Prepared = list[tuple[Any, Ask]]  # of each question its prompt, or an error


class AnsweringModel:
    """A model directory, loaded. On a CPU it computes in float32 on every core, on a GPU in bfloat16."""

    def __init__(self, directory: Path, device: str, batch_size: int, threads: int | None = None) -> None:
        import torch

        self.device = chosen_device(device)
        if self.device.type == "cpu":
            torch.set_num_threads(threads or usable_cores())
        self._batch_size = batch_size
        self._answerer = part(family_at(directory), "answer").Answerer(directory)
        self._answerer.load(self.device, torch.bfloat16 if self.device.type == "cuda" else torch.float32)

    def answer_all(self, chunks: Iterable[Callable[[], Sequence[Ask]]]) -> Iterator[list[Said]]:
        """The answers of each chunk, in its order; the next one's media are decoded meanwhile."""
        with ThreadPoolExecutor(AHEAD) as pool:
            waiting: list[Future[Prepared]] = []
            for chunk in chunks:
                waiting.append(pool.submit(lambda made: self._prepared(made()), chunk))
                if len(waiting) > AHEAD:
                    yield self._answered(waiting.pop(0).result())
            for prepared in waiting:
                yield self._answered(prepared.result())

    def answer(self, chunk: Sequence[Ask]) -> list[Said]:
        """The answers of one chunk."""
        return self._answered(self._prepared(chunk))

    def _prepared(self, chunk: Sequence[Ask]) -> Prepared:
        """The prompt of each question, or the error that says why there is none."""
        return [(self._prompt(ask), ask) for ask in chunk]

    def _prompt(self, ask: Ask) -> Any:
        try:
            return self._answerer.prompt(ask.text, [decoded(item) for item in ask.shown])
        except (RecordError, ImageError, VideoError) as error:
            return error

    def _answered(self, prepared: Prepared) -> list[Said]:
        said = [Said("", str(prompt)) if isinstance(prompt, Exception) else Said("") for prompt, _ in prepared]
        for places in batches(prepared, self._batch_size):
            prompts = [prepared[place][0] for place in places]
            asks = [prepared[place][1] for place in places]
            for place, answer in zip(places, self._batch(prompts, asks), strict=True):
                said[place] = answer
        return said

    def _batch(self, prompts: Sequence[Any], asks: Sequence[Ask]) -> list[Said]:
        """The answers of one batch, which has equal options and, of all or of none, a given answer."""
        if asks[0].given is None:
            return [Said(answer.text.strip()) for answer in self._answerer.answers(prompts, asks[0].options)]
        found = self._answerer.likelihoods(prompts, [ask.given or "" for ask in asks])
        return [Said(ask.given or "", None, loss, greedy) for ask, (loss, greedy) in zip(asks, found, strict=True)]


def batches(prepared: Prepared, size: int) -> Iterator[list[int]]:
    """Places of a chunk's questions that are answered together: with equal options, and of like length."""
    groups: dict[Any, list[int]] = {}
    for place, (prompt, ask) in enumerate(prepared):
        if not isinstance(prompt, Exception):
            groups.setdefault((ask.options, ask.given is None), []).append(place)
    for places in groups.values():
        places.sort(key=lambda place: (prepared[place][0][0].length, place))
        for start in range(0, len(places), size):
            yield places[start : start + size]


def decoded(shown: Shown) -> Any:
    """What is shown as the family takes it: files of images decoded, upright and in RGB, as the training data was."""
    if not isinstance(shown, ImageFile):
        return shown
    from plm_model.media.images import decode_image

    return decode_image(Path(shown.path).read_bytes())


def chosen_device(name: str) -> Any:
    """`auto` is the GPU where there is one."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
