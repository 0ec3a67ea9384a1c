"""`plm generate`: the answer of any checkpoint to a question, about one image, several, a video, or none."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import UserError
from components.terminal_text import one_line, visible

if TYPE_CHECKING:
    from PIL import Image

    from plm_model.codec import Codec
    from plm_model.generation import Generation, GenerationOptions
    from plm_model.prompts import Prompt


def answer(
    ckpt: str,
    media_type: str,
    media: Sequence[str],
    question: str,
    *,
    start_time: float | None = None,
    end_time: float | None = None,
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
    from components.artifacts.artifact import require_sound
    from plm_model.generation import GenerationOptions
    from plm_model.hub import local_directory

    require_media(media_type, media, (start_time, end_time) != (None, None))
    require_sound(ckpt)
    try:
        options = GenerationOptions(max_gen_len, temperature, top_p, top_k, tuple(until), seed)
        ask = partial(question_prompt, media_type, media, question, start_time, end_time)
        said, prompt_tokens, notes = run(local_directory(ckpt), ask, options, show)
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


def require_media(media_type: str, media: Sequence[str], clipped: bool) -> None:
    """UserError unless the files given are what the media type needs."""
    if media_type == "image" and not media:
        raise UserError("--media_type image needs --media_path FILE")
    if media_type == "video" and len(media) != 1:
        raise UserError(f"--media_type video needs one file as --media_path, not {len(media)}")
    if media_type == "text" and media:
        raise UserError("--media_type text takes no --media_path; use --media_type image or video")
    if clipped and media_type != "video":
        raise UserError(f"--start_time and --end_time are for --media_type video, not {media_type}")


def question_prompt(
    media_type: str, media: Sequence[str], question: str, start: float | None, end: float | None, codec: Codec
) -> Prompt:
    """The prompt of a question about files."""
    from plm_model.prompts import image_prompt, text_prompt, video_prompt

    if media_type == "text":
        return text_prompt(codec, question)
    if media_type == "video":
        return video_prompt(codec, question, media[0], start, end)
    return image_prompt(codec, question, [read_image(path) for path in media])


def read_image(path: str) -> Image.Image:
    """The image of a file, whole but not decoded yet: how is for the model to say. UserError names the file that is none."""
    from plm_model.image_file import ImageError, opened
    from plm_model.images import verified_size

    try:
        data = Path(path).read_bytes()
        verified_size(data)
        return opened(data)
    except OSError as error:
        raise UserError(f"{path}: cannot read the image: {error.strerror}") from error
    except ImageError as error:
        raise UserError(f"{path}: {error}") from error


def run(
    place: Path,
    ask: Callable[[Codec], Prompt],
    options: GenerationOptions,
    show: Callable[[str], object] | None,
) -> tuple[Generation, int, list[str]]:
    """Load the checkpoint and generate: the answer, the prompt's length and notes on the checkpoint."""
    import torch

    from plm_model.checkpoint import load
    from plm_model.codec import Codec
    from plm_model.generation import generate
    from plm_model.layouts import read_checkpoint
    from plm_model.text_stream import TextStream

    checkpoint = read_checkpoint(place)
    prompt = ask(Codec(checkpoint.tokenizer, checkpoint.config))
    cuda = torch.cuda.is_available()
    model = load(checkpoint, "cuda" if cuda else "cpu", torch.bfloat16 if cuda else torch.float32)
    stream = TextStream(show, options.stop).update if show else None
    said = generate(model, checkpoint.tokenizer, [prompt], options, on_text=stream)[0]
    return said, prompt[0].length, list(checkpoint.notes)


class Screen:
    """The answer on standard output under its heading, as it comes, with a newline at its end.

    A model may have learnt escape sequences: they are shown as text.
    """

    def __init__(self) -> None:
        self.begun = False

    def show(self, piece: str) -> None:
        """Print the next piece."""
        if not self.begun:
            print("Generation:")
            self.begun = True
        print(visible(piece), end="", flush=True)

    def close(self, notes: Sequence[str]) -> None:
        """End the answer, which may be empty; each note is a warning on standard error."""
        self.show("\n")
        for note in notes:
            print(f"warning: {one_line(note)}", file=sys.stderr)
