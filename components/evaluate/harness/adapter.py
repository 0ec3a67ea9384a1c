"""Our checkpoint directories as an lmms-eval model (simple interface): batches of greedy answers with a KV cache."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from PIL import Image

from components.processes.machine import usable_cores
from plm_model.codec import Codec, Example
from plm_model.conversation import RejectedRecord
from plm_model.generation import GenerationOptions, generate
from plm_model.images import ImageError, processor_for, tile_image
from plm_model.prompts import question_record
from plm_model.record import VideoClip
from plm_model.video import VideoError, video_tiles
from plm_model.weights import load_model

DEFAULT_NEW_TOKENS = 64  # many tasks name no limit


class PLMAdapter(lmms):
    """Answers the requests of lmms-eval with a PLM checkpoint.

    `pretrained` is a checkpoint directory, `device` is `auto`, `cpu` or `cuda`; `progress` is called with (answered, all).
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
        self._model, self._tokenizer = load_model(pretrained, self._device, dtype)
        self._codec = Codec(self._tokenizer, self._model.config)
        self._name = str(pretrained)
        self._batch_size = int(batch_size)
        self._max_new_tokens = int(max_new_tokens)
        self.not_asked: list[dict[str, Any]] = []
        self._progress = progress or (lambda answered, total: None)

    def __str__(self) -> str:
        return f"PLMAdapter({self._name})"  # the harness keys its response cache by this; the default holds an address

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
            said = generate(self._model, self._tokenizer, list(prompts.values()), options) if prompts else []
            for index, answer in zip(prompts, said, strict=True):
                answers[index] = answer.text.strip()
            answered += len(indices)
            self._progress(answered, len(requests))
        return answers

    def prompt_or_none(self, request: Instance) -> tuple[Example, np.ndarray] | None:
        """The prompt of a request; None, with a note in `not_asked`, when it does not fit or its media cannot be read."""
        try:
            return self.prompt(request)
        except (RejectedRecord, ImageError, VideoError) as error:
            _, _, _, doc_id, task, _ = request.args
            self.not_asked.append({"task": task, "document": doc_id, "reason": str(error)})
            return None

    def prompt(self, request: Instance) -> tuple[Example, np.ndarray]:
        """A request as an encoded prompt and its tiles, uint8 [tiles, 3, H, W]."""
        text, _, doc_to_visual, doc_id, task, split = request.args
        shown = media_of(doc_to_visual(self.task_dict[task][split][doc_id]))
        tiles = [self.tiles(item, len(shown)) for item in shown]
        record = question_record(f"{task}/{doc_id}", text, len(shown))
        example = self._codec.prompt(record, [len(each) for each in tiles])
        side = self._model.config.vision.image_size
        return example, np.concatenate(tiles) if tiles else np.zeros((0, 3, side, side), np.uint8)

    def tiles(self, item: Image.Image | VideoClip, of: int) -> np.ndarray:
        """The tiles of one of the `of` images and videos of a request."""
        processor, side = self._model.config.processor, self._model.config.vision.image_size
        if isinstance(item, VideoClip):
            return video_tiles(item.path, processor, side, item.start, item.end, item.boxes)
        return tile_image(item, processor_for(processor, of), side)

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

    A list of frames of a video becomes as many images, one tile each, in front of the text like the video's own frames.
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
