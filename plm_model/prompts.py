"""A question about images, a video or nothing becomes a prompt: its tokens, and its tiles in the order of their placeholders.

    model, tokenizer = open_checkpoint("DIR")
    codec = Codec(tokenizer, model.config)
    prompts = [image_prompt(codec, "What is this?", [image]), video_prompt(codec, "What happens?", "clip.mp4")]
    first, second = generate(model, tokenizer, prompts)

As many `<image>` tags in the question as there are tiles (images of several are one tile each, so are frames) are replaced in
place, in order. Any other number of tags is taken out, and the media come before the question.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from plm_model.codec import Codec, Example
from plm_model.conversation import IMAGE_TAG
from plm_model.images import processor_for, tile_image
from plm_model.record import Record, Turn
from plm_model.turns import require_unicode
from plm_model.video import Source, video_tiles

Prompt = tuple[Example, np.ndarray]  # an encoded question, and uint8 [tiles, 3, H, W]


def text_prompt(codec: Codec, question: str) -> Prompt:
    """A question about nothing but itself; RejectedRecord (as for the others) when it does not fit the model."""
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


def question_record(id: str, text: str, media: int) -> Record:
    """A question about so many images or videos as a record, in which several images have one tag each."""
    return Record(id, tuple(str(number) for number in range(media)), (Turn("human", tagged(text, media)),), row={})


def tagged(text: str, images: int) -> str:
    """A question about several images with one tag for each; where the task set none, or too few, all stand in front."""
    if images <= 1 or text.count(IMAGE_TAG) == images:
        return text
    return IMAGE_TAG * images + text.replace(IMAGE_TAG, "")


def prompt(codec: Codec, question: str, media: Sequence[np.ndarray]) -> Prompt:
    """A question about media, each given as its tiles."""
    side = codec.config.vision.image_size
    tiles = np.concatenate([np.zeros((0, 3, side, side), np.uint8), *media])
    counts = [len(each) for each in media]
    tags = question.count(IMAGE_TAG)
    if tags == len(tiles) > 1:
        counts = [1] * tags
    elif len(media) > 1:
        question = IMAGE_TAG * len(media) + question.replace(IMAGE_TAG, "")
    require_unicode(question, "question")
    names = tuple(str(number) for number in range(len(counts)))
    return codec.prompt(Record("question", names, (Turn("human", question),), row={}), counts), tiles
