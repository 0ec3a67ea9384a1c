"""Answers, a character at a time, greedily."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from mean_colour.codec import Codec, asked, ids
from mean_colour.collator import Collator, colours
from mean_colour.settings import END
from plm_model.answers.options import Generation, GenerationOptions, OnText
from plm_model.packs.example import Example, example
from plm_model.packs.stored import Item
from plm_model.records.record import VideoClip
from plm_model.records.turns import RecordError

if TYPE_CHECKING:
    import torch

HARNESS_NAME = "mean_colour"


class Answerer:
    def __init__(self, directory: Path) -> None:
        from mean_colour.directory import read_directory

        self._opened = read_directory(directory)
        self.notes: Sequence[str] = ()

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        from mean_colour.model import build

        self._model = build(self._opened.config, device).to(dtype).eval()
        self._model.load_state_dict(dict(self._opened.stream()))

    def prompt(self, question: str, media: Sequence[Image.Image | VideoClip]) -> tuple[Example, np.ndarray]:
        images = [item for item in media if isinstance(item, Image.Image)]
        if len(images) < len(media):
            raise RecordError("a video has no mean colour")
        return asked(question, len(images)), colours(images)

    def answers(
        self,
        prompts: Sequence[tuple[Example, np.ndarray]],
        options: GenerationOptions,
        on_text: OnText | None = None,
    ) -> list[Generation]:
        return [self._answer(tokens.tokens.tolist(), media, options) for tokens, media in prompts]

    def likelihoods(
        self, prompts: Sequence[tuple[Example, np.ndarray]], answers: Sequence[str]
    ) -> list[tuple[float, bool]]:
        return [
            self._likelihood(tokens.tokens.tolist(), media, answer)
            for (tokens, media), answer in zip(prompts, answers, strict=True)
        ]

    def _likelihood(self, tokens: list[int], media: np.ndarray, answer: str) -> tuple[float, bool]:
        given = ids(answer)
        sequence = np.array(tokens + given, np.int32)
        batch = Collator(self._opened.config).batch([Item("", example(sequence, sequence), {"colours": media})])
        scores = self._model.scores(self._model.rows(batch))[len(tokens) - 1 : -1].float()
        shares = scores.log_softmax(-1)
        losses = [-float(shares[place, token]) for place, token in enumerate(given)]
        return sum(losses) / len(losses), scores.argmax(-1).tolist() == given

    def _answer(self, tokens: list[int], media: np.ndarray, options: GenerationOptions) -> Generation:
        said: list[int] = []
        collator, codec = Collator(self._opened.config), Codec(self._opened.config)
        while len(said) < options.max_new_tokens:
            sequence = np.array(tokens + said, np.int32)
            batch = collator.batch([Item("", example(sequence, sequence), {"colours": media})])
            token = int(self._model.scores(self._model.rows(batch)[-1]).argmax())
            if token == END:
                return Generation(codec.text(said), said, "stop")
            said.append(token)
        return Generation(codec.text(said), said, "length")
