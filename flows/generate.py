"""`plm generate`: the answer of any checkpoint to a question, about one image, several, or none."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import UserError

if TYPE_CHECKING:
    from plm_model.generate import Generation, GenerationOptions
    from plm_model.record import Record

TAG = "<image>"


def answer(
    ckpt: str,
    media_type: str,
    media: Sequence[str],
    question: str,
    *,
    max_gen_len: int = 256,
    temperature: float = 0.0,
    top_p: float | None = None,
    top_k: int | None = None,
    until: Sequence[str] = (),
    seed: int = 0,
    show: Callable[[str], object] | None = None,
) -> dict[str, Any]:
    """Answer one question; UserError when the checkpoint, the media or an option is wrong.

    `show` is given the answer piece by piece while it is generated.
    """
    from plm_model.generate import GenerationOptions
    from plm_model.hub import local_directory

    require_media(media_type, media)
    try:
        options = GenerationOptions(max_gen_len, temperature, top_p, top_k, tuple(until), seed)
        data = [read_media(path) for path in media]
        record = question_record(question, media)
        said, prompt_tokens, notes = run(local_directory(ckpt), record, data, options, show)
    except ValueError as error:  # every error of plm_model about its input is one
        raise UserError(str(error)) from error
    return {
        "answer": said.text,
        "finish_reason": said.finish_reason,
        "tokens": len(said.token_ids),
        "prompt_tokens": prompt_tokens,
        "question": question,
        "media": list(media),
        "checkpoint": ckpt,
        "notes": notes,
    }


def require_media(media_type: str, media: Sequence[str]) -> None:
    """UserError unless the files given are what the media type needs."""
    if media_type == "video":
        raise UserError("--media_type video is not supported yet; use image with one or several frames")
    if media_type == "image" and not media:
        raise UserError("--media_type image needs --media_path FILE")
    if media_type == "text" and media:
        raise UserError("--media_type text takes no --media_path; use --media_type image")


def read_media(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot read the image: {error.strerror}") from error


def question_record(question: str, media: Sequence[str]) -> Record:
    """The question as a record. Several images without a tag each in the question come before it."""
    from plm_model.record import parse_record

    if len(media) > 1 and question.count(TAG) != len(media):
        question = TAG * len(media) + question.replace(TAG, "")
    return parse_record(
        {"id": "question", "image": list(media), "conversations": [{"from": "human", "value": question}]}
    )


def run(
    place: Path, record: Record, data: list[bytes], options: GenerationOptions, show: Callable[[str], object] | None
) -> tuple[Generation, int, list[str]]:
    """Load the checkpoint and generate: the answer, the prompt's length and notes on the checkpoint."""
    import torch

    from plm_model.checkpoint import load
    from plm_model.codec import Codec
    from plm_model.generate import generate
    from plm_model.layouts import read_checkpoint
    from plm_model.text_stream import TextStream

    checkpoint = read_checkpoint(place)
    tiles = tiles_of(data, record.images, checkpoint.config)
    counts = [len(each) for each in tiles]
    prompt = Codec(checkpoint.tokenizer, checkpoint.config).prompt(record, counts)
    cuda = torch.cuda.is_available()
    model = load(checkpoint, "cuda" if cuda else "cpu", torch.bfloat16 if cuda else torch.float32)
    prompts = [(prompt, stacked(tiles, checkpoint.config))]
    stream = TextStream(show, options.stop).update if show else None
    said = generate(model, checkpoint.tokenizer, prompts, options, on_text=stream)[0]
    return said, prompt.length, list(checkpoint.notes)


def tiles_of(data: list[bytes], paths: Sequence[str], config: Any) -> list[Any]:
    """The tiles of each image, uint8 [tiles, 3, H, W]; UserError names the file that is no image."""
    from plm_model.images import ImageError, opened, processor_for, tile_image

    each = processor_for(config.processor, len(data))
    tiles = []
    for path, content in zip(paths, data, strict=True):
        try:
            tiles.append(tile_image(opened(content), each, config.vision.image_size))
        except ImageError as error:
            raise UserError(f"{path}: {error}") from error
    return tiles


def stacked(tiles: list[Any], config: Any) -> Any:
    import numpy as np

    side = config.vision.image_size
    return np.concatenate(tiles) if tiles else np.zeros((0, 3, side, side), np.uint8)


class Screen:
    """The answer on standard output under its heading, as it comes, with a newline at its end."""

    def __init__(self) -> None:
        self.begun = False

    def show(self, piece: str) -> None:
        """Print the next piece."""
        if not self.begun:
            print("Generation:")
            self.begun = True
        print(piece, end="", flush=True)

    def close(self, notes: Sequence[str]) -> None:
        """End the answer, which may be empty; each note is a warning on standard error."""
        self.show("\n")
        for note in notes:
            print(f"warning: {note}", file=sys.stderr)
