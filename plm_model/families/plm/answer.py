"""A model directory that answers: a question about images, a video or nothing becomes a prompt, and prompts become answers.

    model, tokenizer = open_model("DIR")
    codec = Codec(tokenizer, model.config)
    prompts = [image_prompt(codec, "What is this?", [image]), video_prompt(codec, "What happens?", "clip.mp4")]
    first, second = generate(model, tokenizer, prompts)

As many `<image>` tags in the question as there are tiles (images of several are one tile each, so are frames) are replaced in
place, in order. Any other number of tags is taken out, and the media come before the question.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from plm_model.families.plm.codec import Codec
from plm_model.families.plm.tiles import processor_for, tile_image, video_tiles
from plm_model.media.frame_table import Source
from plm_model.packs.example import Example
from plm_model.records.record import VideoClip

if TYPE_CHECKING:
    import torch

    from plm_model.answers.options import Generation, GenerationOptions, OnText

HARNESS_NAME = "plm"  # as lmms-eval's tasks know it, some of which have prompts for a model
Prompt = tuple[Example, np.ndarray]  # an encoded question, and uint8 [tiles, 3, H, W]


class Answerer:
    """Answers questions with the model of a directory in any layout; `notes` say what was assumed about it.

    Only headers are read until `load`, so that a question that cannot be put is found before the weights are.
    """

    def __init__(self, directory: Path) -> None:
        from plm_model.families.plm.layouts.detect import read_directory

        self._opened = read_directory(directory)
        self.notes = self._opened.notes
        self.codec = Codec(self._opened.tokenizer, self._opened.config)

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """Read the weights."""
        from plm_model.families.plm.weights import load

        self._model = load(self._opened, device, dtype)

    def prompt(self, question: str, media: Sequence[Image.Image | VideoClip]) -> Prompt:
        """A question about images and clips of video files. RecordError when it does not fit the model; ImageError and
        VideoError name what is wrong with the media."""
        return prompt(self.codec, question, [self._tiles(item, len(media)) for item in media])

    def _tiles(self, item: Image.Image | VideoClip, of: int) -> np.ndarray:
        processor, side = self.codec.config.processor, self.codec.config.vision.image_size
        if isinstance(item, VideoClip):
            return video_tiles(item.path, processor, side, item.start, item.end, item.boxes)
        return tile_image(item, processor_for(processor, of), side)

    def answers(
        self, prompts: Sequence[Prompt], options: GenerationOptions, on_text: OnText | None = None
    ) -> list[Generation]:
        """The answers to prompts, as one batch, in their order; `on_text` is told of each as it grows."""
        from plm_model.families.plm.generation import generate

        return generate(self._model, self._opened.tokenizer, prompts, options, on_text)

    def likelihoods(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[tuple[float, bool]]:
        """The mean loss of each prompt's given answer, and whether it is the likeliest."""
        from plm_model.families.plm.generation import likelihoods

        return likelihoods(self._model, self._opened.tokenizer, prompts, answers)


def text_prompt(codec: Codec, question: str) -> Prompt:
    """A question about nothing but itself; RecordError (as for the others) when it does not fit the model."""
    return prompt(codec, question, [])


def image_prompt(codec: Codec, question: str, images: Sequence[Image.Image]) -> Prompt:
    """A question about RGB images: one cut into tiles as the model was trained, or several of one tile each."""
    processor, side = processor_for(codec.config.processor, len(images)), codec.config.vision.image_size
    return prompt(codec, question, [tile_image(image, processor, side) for image in images])


def video_prompt(
    codec: Codec, question: str, video: Source, start: float | None = None, end: float | None = None
) -> Prompt:
    """A question about a video file, or its part between two times in seconds; VideoError names what is wrong with it."""
    frames = video_tiles(video, codec.config.processor, codec.config.vision.image_size, start, end)
    return prompt(codec, question, [frames])


def prompt(codec: Codec, question: str, media: Sequence[np.ndarray]) -> Prompt:
    """A question about media, each given as its tiles."""
    side = codec.config.vision.image_size
    tiles = np.concatenate([np.zeros((0, 3, side, side), np.uint8), *media])
    return codec.question(question, [len(each) for each in media]), tiles
