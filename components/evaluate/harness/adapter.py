"""Our model directories as an lmms-eval model (simple interface): batches of greedy answers with a KV cache."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from PIL import Image

from components.processes.machine import usable_cores
from plm_model.answers.options import GenerationOptions
from plm_model.family import part
from plm_model.media.image_file import ImageError
from plm_model.media.video import VideoError
from plm_model.model_directory.description import family_at
from plm_model.packs.example import Example
from plm_model.records.record import RecordError, VideoClip

DEFAULT_NEW_TOKENS = 64  # many tasks name no limit


class FamilyAdapter(lmms):
    """Answers the requests of lmms-eval with a model directory of any family.

    `pretrained` is a model directory, `device` is `auto`, `cpu` or `cuda`; `progress` is called with (answered, all).
    On a CPU it computes in float32 on every core, on a GPU in bfloat16.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str,
        batch_size: int | str = 1,
        device: str | None = "auto",
        max_new_tokens: int = DEFAULT_NEW_TOKENS,
        progress: Callable[[int, int], None] | None = None,
        **_ignored: Any,
    ) -> None:
        super().__init__()
        self._device = chosen_device(device or "auto")
        if self._device.type == "cpu":
            torch.set_num_threads(usable_cores())
        dtype = torch.bfloat16 if self._device.type == "cuda" else torch.float32
        self._answerer = part(family_at(Path(pretrained)), "answer").Answerer(Path(pretrained))
        self._answerer.load(self._device, dtype)
        self._name = str(pretrained)
        self._batch_size = int(batch_size)
        self._max_new_tokens = int(max_new_tokens)
        self.not_asked: list[dict[str, Any]] = []
        self._progress = progress or (lambda answered, total: None)

    def __str__(self) -> str:
        return (
            f"FamilyAdapter({self._name})"  # the harness keys its response cache by this; the default holds an address
        )

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def batch_size(self) -> int:
        return self._batch_size

    def clean(self) -> None:
        """Keep the weights: the harness would delete them after the first evaluation."""

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """The answers, in the order of the requests; those with equal generation settings share batches.

        A request that cannot be put to the model is answered by nothing, and stands in `not_asked` with the reason.
        """
        answers: list[str] = [""] * len(requests)
        answered = 0
        for options, indices in batches(requests, self._max_new_tokens, self._batch_size):
            prompts = {index: prompt for index in indices if (prompt := self.prompt_or_none(requests[index]))}
            said = self._answerer.answers(list(prompts.values()), options) if prompts else []
            for index, answer in zip(prompts, said, strict=True):
                answers[index] = answer.text.strip()
            answered += len(indices)
            self._progress(answered, len(requests))
        return answers

    def prompt_or_none(self, request: Instance) -> tuple[Example, Any] | None:
        """The prompt of a request; None, with a note in `not_asked`, when it does not fit or its media cannot be read."""
        try:
            return self.prompt(request)
        except (RecordError, ImageError, VideoError) as error:
            _, _, _, doc_id, task, _ = request.args
            self.not_asked.append({"task": task, "document": doc_id, "reason": str(error)})
            return None

    def prompt(self, request: Instance) -> tuple[Example, Any]:
        """A request as the family's prompt."""
        text, _, doc_to_visual, doc_id, task, split = request.args
        return self._answerer.prompt(text, media_of(doc_to_visual(self.task_dict[task][split][doc_id])))

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        raise NotImplementedError("tasks that compare likelihoods are not supported; choose one that generates answers")

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        raise NotImplementedError("tasks of several rounds are not supported")


def chosen_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def batches(
    requests: Sequence[Instance], max_new_tokens: int, batch_size: int
) -> Iterator[tuple[GenerationOptions, list[int]]]:
    """Indices of the requests in batches of equal generation settings, in order of appearance."""
    groups: dict[GenerationOptions, list[int]] = {}
    for index, request in enumerate(requests):
        groups.setdefault(generation_options(request.args[1], max_new_tokens), []).append(index)
    for options, indices in groups.items():
        for start in range(0, len(indices), batch_size):
            yield options, indices[start : start + batch_size]


def generation_options(settings: Mapping[str, Any], max_new_tokens: int) -> GenerationOptions:
    """A task's generation settings in our terms. Greedy unless the task asks for sampling.

    The harness adds a blank line to `until` where a task names nothing else; it is honoured like any other.
    """
    until = settings.get("until") or ()
    sample = settings.get("do_sample", True) and (settings.get("temperature") or 0.0) > 0
    return GenerationOptions(
        max_new_tokens=int(settings.get("max_new_tokens") or max_new_tokens),
        temperature=float(settings["temperature"]) if sample else 0.0,
        top_p=settings.get("top_p") if sample else None,
        top_k=settings.get("top_k") if sample else None,
        stop=tuple(text for text in ((until,) if isinstance(until, str) else until) if text),
    )


def media_of(visuals: Any) -> list[Image.Image | VideoClip]:
    """What a request shows, as one flat list: images, and videos, which tasks name by their path.

    A list of frames of a video becomes as many images, in front of the text like the video's own frames.
    """
    if visuals is None:
        return []
    if isinstance(visuals, (Image.Image, VideoClip)):
        return [visuals]
    if isinstance(visuals, (str, os.PathLike)):
        return [VideoClip(os.fspath(visuals))]
    if isinstance(visuals, (list, tuple)):
        return [item for visual in visuals for item in media_of(visual)]
    raise NotImplementedError(f"this task shows a {type(visuals).__name__}; only images and videos can be evaluated")
