"""Captions of images and videos: each file is described in a sentence and at length, all of them in one batch.

    python configs/walkthroughs/captioning.py --ckpt MODEL photo.jpg clip.mp4

MODEL is a directory in any layout, or owner/name@commit on the Hugging Face hub. `--question` asks something else.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from plm_model import Codec, generate, open_model
from plm_model.answers.options import GenerationOptions
from plm_model.families.plm.answer import Prompt, image_prompt, video_prompt
from plm_model.media.images import decode_image
from plm_model.model_directory.hub import local_directory

VIDEOS = {".mp4", ".mov", ".mkv", ".webm", ".avi"}
QUESTIONS = {
    "image": ("Describe the image in one sentence.", "Describe the image in detail."),
    "video": ("Describe the video in one sentence.", "Describe in detail what happens in the video."),
}


def prompt_of(codec: Codec, file: Path, question: str) -> Prompt:
    """A question about a file; ValueError names the file that is neither an image nor a video."""
    if kind_of(file) == "video":
        return video_prompt(codec, question, file)
    try:
        return image_prompt(codec, question, [decode_image(file.read_bytes())])
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def kind_of(file: Path) -> str:
    return "video" if file.suffix.lower() in VIDEOS else "image"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the captions; exit status 2 and one line on standard error for a wrong checkpoint or file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--ckpt", required=True, metavar="MODEL")
    parser.add_argument("--question", action="append", help="in place of the two captions; may repeat")
    parser.add_argument("--max_gen_len", type=int, default=256, metavar="N")
    arguments = parser.parse_args(argv)
    cuda = torch.cuda.is_available()
    device, dtype = ("cuda", torch.bfloat16) if cuda else ("cpu", torch.float32)
    try:
        model, tokenizer = open_model(local_directory(arguments.ckpt), device, dtype)
        codec = Codec(tokenizer, model.config)
        asked = [(file, ask) for file in arguments.files for ask in arguments.question or QUESTIONS[kind_of(file)]]
        prompts = [prompt_of(codec, file, ask) for file, ask in asked]
        answers = generate(model, tokenizer, prompts, GenerationOptions(arguments.max_gen_len))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for (file, ask), answer in zip(asked, answers, strict=True):
        print(f"{file} · {ask}\n{answer.text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
