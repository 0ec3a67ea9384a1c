"""A look at a picture before it is trained on: that it is whole, and what is odd about it though it can be shown.

Decoders forgive: a JPEG with a hole comes out half grey, without an error. And nobody looks at a million pictures: an empty one
is found here, in the decode that finds out whether it is whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from plm_model.media.image_file import opened
from plm_model.media.images import WHITE, upright_rgb, upright_size

BLANK = 0.04  # of the range from black to white: less than that is a blank picture
DARK = 0.1  # of the range of 16 bits: the largest value of what may be 8 or 12 bits stored in 16
HUGE = 89_478_485  # pixels, from which Pillow warns
ZEROS, ZERO_SHARE = 64, 0.02  # bytes, and of the file: with an end of so many it is hardly a whole picture
STRICT = {"err_detect": "explode+crccheck+bitstream+buffer"}


@dataclass(frozen=True)
class Look:
    """Width and height as `decode_image` gives them; kinds of what is odd: `damaged_picture`, `blank`, ..."""

    size: tuple[int, int]
    notes: frozenset[str]


def look(data: bytes, white: int = WHITE) -> Look:
    """Decode all of an image, a JPEG at an eighth of its size; ImageError when it cannot be."""
    notes = set()
    with opened(data) as image:
        size = upright_size(image)
        if size[0] * size[1] > HUGE:
            notes.add("huge_picture")
        rgb = upright_rgb(image, at_least=(1, 1), white=white)
        if is_blank(rgb):
            notes.add("blank")
        if image.mode.startswith("I") and int(np.asarray(image).max()) < DARK * white:
            notes.add("dark_16_bit")
        if is_damaged(data, image):
            notes.add("damaged_picture")
    return Look(size, frozenset(notes))


def is_blank(rgb: Image.Image) -> bool:
    """Whether the levels of no channel spread over more than a few of a hundred."""
    channels: Any = rgb.getextrema()  # of RGB, a pair for each
    return all(high - low < BLANK * 255 for low, high in channels)


def is_blank_video(frames: np.ndarray) -> bool:
    """The same of the frames of a video together, uint8 [frames, 3, H, W]."""
    return int(np.ptp(frames, axis=(0, 2, 3)).max()) < BLANK * 255


def is_damaged(data: bytes, image: Image.Image) -> bool:
    """Whether a picture, decoded as it is stored, is damaged all the same.

    A JPEG is decoded by ffmpeg, which can be told to forgive nothing. WebP and AVIF have no checksum; what is looked for is the
    end of zeros that a broken copy leaves. Other formats say so themselves, or cannot.
    """
    if image.format in ("JPEG", "MPO"):
        return jpeg_is_damaged(data)
    zeros = len(data) - len(data.rstrip(b"\0"))
    return image.format in ("WEBP", "AVIF") and zeros >= max(ZEROS, ZERO_SHARE * len(data)) and not has_plain_end(image)


def has_plain_end(image: Image.Image) -> bool:
    """Whether the last rows are of one colour: of these a WebP may well be written as zeros."""
    rows = image.crop((0, image.height - max(1, image.height // 30), image.width, image.height))
    return is_blank(rows.convert("RGB"))


def jpeg_is_damaged(data: bytes) -> bool:
    """Whether a decoder that forgives nothing refuses it; not where it does not know this kind of JPEG, or is not there."""
    try:
        import av
    except ImportError:
        return False
    decoder: Any = av.CodecContext.create("mjpeg", "r")
    decoder.options, decoder.thread_count = STRICT, 1
    try:
        decoder.decode(av.Packet(data))
        decoder.decode(None)
    except av.error.InvalidDataError:
        return True
    except av.FFmpegError:
        return False
    return False
