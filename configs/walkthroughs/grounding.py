"""Grounding: a description becomes a box, drawn on the image; and a box becomes a description of what is in it.

    python configs/walkthroughs/grounding.py --ckpt MODEL --image photo.jpg --find "the dog on the left" --out found.png
    python configs/walkthroughs/grounding.py --ckpt MODEL --image photo.jpg --box 40 300 90 360 --out box.png

The model writes and reads a box as its corners in thousandths of the image's sides: on 480 x 640 pixels,
[040,482,112,576] is the box from (19.2, 308.5) to (53.8, 368.6). `--box` is x1 y1 x2 y2 in pixels. What `--find` finds is
described again from its box alone, which shows whether the model means the same thing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image

from plm_model import Codec, generate, open_model
from plm_model.answers.options import GenerationOptions
from plm_model.families.plm.answer import image_prompt
from plm_model.media.images import decode_image
from plm_model.model_directory.hub import local_directory
from plm_model.records.regions import SLACK, Box, BoxError, box_text, corners, draw_box, find_boxes, overhang

FIND = "Where in the image is this: {what}? Answer with its bounding box, [x1, y1, x2, y2]."
DESCRIBE = "Describe the region {box} of the image."
Ask = Callable[[Image.Image, str], str]


def asker(place: str, max_gen_len: int) -> Ask:
    """The answers of a checkpoint to questions about an image."""
    device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
    model, tokenizer = open_model(local_directory(place), device, dtype)
    codec = Codec(tokenizer, model.config)

    def ask(image: Image.Image, question: str) -> str:
        prompt = image_prompt(codec, question, [image])
        return generate(model, tokenizer, [prompt], GenerationOptions(max_gen_len))[0].text

    return ask


def find(ask: Ask, image: Image.Image, what: str) -> Box:
    """The box of what is described, in pixels; BoxError when the answer holds none, or one that is none."""
    answer = ask(image, FIND.format(what=what))
    boxes = find_boxes(answer, image.width, image.height)
    if not boxes:
        raise BoxError(f"the answer holds no box: {answer!r}")
    return corners(boxes[0])


def describe(ask: Ask, image: Image.Image, box: Box) -> str:
    """What the model says of a region of the image; BoxError when it is not on the image."""
    x1, y1, x2, y2 = box
    region, size = (x1, y1, x2 - x1, y2 - y1), (image.width, image.height)
    if overhang(region, *size) > SLACK:
        raise BoxError(f"the box {list(box)} is outside the image of {size[0]}x{size[1]}")
    return ask(image, DESCRIBE.format(box=box_text(region, *size)))


def main(argv: Sequence[str] | None = None) -> int:
    """Print box and description, and draw the box; exit status 1 when no box is found, 2 when something given is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt", required=True, metavar="MODEL")
    parser.add_argument("--image", required=True, type=Path)
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--find", metavar="TEXT")
    task.add_argument("--box", nargs=4, type=float, metavar=("X1", "Y1", "X2", "Y2"))
    parser.add_argument("--out", type=Path, help="where the image with the box is written")
    parser.add_argument("--max_gen_len", type=int, default=256, metavar="N")
    arguments = parser.parse_args(argv)
    try:
        image = decode_image(arguments.image.read_bytes())
        ask = asker(arguments.ckpt, arguments.max_gen_len)
        box = corners(arguments.box) if arguments.box else None
        if box is None:
            try:
                box = find(ask, image, arguments.find)
            except BoxError as error:
                print(f"error: {error}", file=sys.stderr)
                return 1
        description = describe(ask, image, box)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"box: {', '.join(f'{side:.1f}' for side in box)}\n{description}")
    if arguments.out:
        draw_box(image, box)
        image.save(arguments.out)
        print(f"drawn: {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
