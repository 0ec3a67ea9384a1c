"""The answer of any model directory to a question, about one image, several, a video, or none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

    from plm_model.records.record import VideoClip


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
    """Answer one question; UserError when the model directory, the media or an option is wrong.

    `show` is given the answer piece by piece while it is generated.
    """
    require_media(media_type, media, (start_time, end_time) != (None, None))
    import torch

    from components.artifacts.artifact import require_sound
    from plm_model.answers.options import GenerationOptions
    from plm_model.answers.text_stream import TextStream
    from plm_model.family import part
    from plm_model.model_directory.description import family_at
    from plm_model.model_directory.hub import local_directory

    require_sound(ckpt)
    try:
        options = GenerationOptions(max_gen_len, temperature, top_p, top_k, tuple(until), seed)
        directory = local_directory(ckpt)
        answerer = part(family_at(directory), "answer").Answerer(directory)
        prompt = answerer.prompt(question, shown(media_type, media, start_time, end_time))
        cuda = torch.cuda.is_available()
        answerer.load(torch.device("cuda" if cuda else "cpu"), torch.bfloat16 if cuda else torch.float32)
        stream = TextStream(show, options.stop).update if show else None
        (said,) = answerer.answers([prompt], options, stream)
    except ValueError as error:  # every error of plm_model about its input is one
        raise UserError(str(error)) from error
    return {
        "answer": said.text,
        "finish_reason": said.finish_reason,
        "tokens": len(said.token_ids),
        "prompt_tokens": prompt[0].length,
        "question": question,
        "media": list(media),
        "model": ckpt,
        "notes": list(answerer.notes),
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


def shown(
    media_type: str, media: Sequence[str], start: float | None, end: float | None
) -> list[Image.Image | VideoClip]:
    """What a question about files shows."""
    from plm_model.records.record import VideoClip

    if media_type == "video":
        return [VideoClip(media[0], start, end)]
    return [read_image(path) for path in media]


def read_image(path: str) -> Image.Image:
    """The image of a file, whole but not decoded yet: how is for the model to say. UserError names the file that is none."""
    from plm_model.media.image_file import ImageError, opened
    from plm_model.media.images import verified_size

    try:
        data = Path(path).read_bytes()
        verified_size(data)
        return opened(data)
    except OSError as error:
        raise UserError(f"{path}: cannot read the image: {error.strerror}") from error
    except ImageError as error:
        raise UserError(f"{path}: {error}") from error
