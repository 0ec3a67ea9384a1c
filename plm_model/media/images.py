"""Encoded image bytes become upright RGB images, the same on every machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from plm_model.media.image_file import ImageError, naming_damage, opened

ORIENTATION = 0x0112  # the EXIF tag; from 5 on, width and height are swapped
WHITE = 65535  # of 16-bit grey, unless a processor says otherwise
BAND = 256  # rows that are converted together


def decode_image(data: bytes) -> Image.Image:
    """Decode to an upright RGB image.

    EXIF orientation is applied; transparency is laid on white; 16-bit grey is scaled to 8 bits; palette and CMYK are
    converted; of an animation the first frame is taken. ImageError when the data is empty, cut short, no image or too
    large.
    """
    with opened(data) as image:
        return upright_rgb(image)


def verified_size(data: bytes) -> tuple[int, int]:
    """Width and height as `decode_image` gives them, once all of the image was decoded, a JPEG at an eighth of its size."""
    with opened(data) as image:
        size = upright_size(image)
        upright_rgb(image, at_least=(1, 1))
        return size


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height with EXIF orientation applied; of a JPEG only the header is read for it."""
    return image.size[::-1] if orientation(image) >= 5 else image.size


def upright_rgb(image: Image.Image, at_least: tuple[int, int] | None = None, white: int = WHITE) -> Image.Image:
    """Decode, turn and convert to RGB; an image that is all of this already is returned as it is.

    With `at_least`, a width and height, a JPEG that was not decoded yet is decoded at the smallest of 1/8, 1/4, 1/2 and 1
    of its size that is not below them. ImageError when it is damaged.
    """
    with naming_damage():
        turned = orientation(image)
        if at_least is not None:
            image.draft(None, at_least[::-1] if turned >= 5 else at_least)
        image.load()
        return to_rgb(ImageOps.exif_transpose(image) if turned > 1 else image, white)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none, and where it cannot be read, which is how viewers show it."""
    with naming_damage():
        if image.format not in ("JPEG", "MPO"):
            image.load()  # other formats may write it behind the pixels
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except Exception:  # parsers raise SyntaxError, struct.error, ... on what other programs wrote
        return 1
    return found if found in range(1, 9) else 1


def to_rgb(image: Image.Image, white: int = WHITE) -> Image.Image:
    """Any PIL mode to RGB; what conversion would silently clip or drop is handled on purpose."""
    if image.mode.startswith("I"):
        require_sixteen_bits(image)
        return by_bands(image, lambda band: eight_bits(band, white).convert("RGB"))
    if image.mode == "F":
        raise ImageError(
            "grey values are floating-point numbers, of which nobody says what is white; store 8 or 16 bits"
        )
    if image.has_transparency_data:
        return by_bands(image, on_white)
    return image if image.mode == "RGB" else image.convert("RGB")


def by_bands(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Convert an image to RGB band by band: the steps between take no more memory than a band."""
    if image.height <= BAND:
        return convert(image)
    whole = Image.new("RGB", image.size)
    for top in range(0, image.height, BAND):
        whole.paste(convert(image.crop((0, top, image.width, min(top + BAND, image.height)))), (0, top))
    return whole


def require_sixteen_bits(image: Image.Image) -> None:
    """ImageError when the values of PIL's 32-bit mode I are not those of 16 bits."""
    if image.mode != "I":
        return
    grey = np.asarray(image)
    if grey.min() < 0 or grey.max() > 65535:
        raise ImageError(f"grey values from {grey.min()} to {grey.max()} do not fit into 16 bits; store 8 or 16 bits")


def eight_bits(image: Image.Image, white: int = WHITE) -> Image.Image:
    """16-bit grey (also in PIL's 32-bit mode I) scaled to 8 bits, `white` and above to 255; PIL itself would clip at 255."""
    grey = np.minimum(np.asarray(image).astype(np.uint32), white)
    return Image.fromarray(((grey * 255 + white // 2) // white).astype(np.uint8))


def on_white(image: Image.Image) -> Image.Image:
    """What is transparent shows white paper."""
    if image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    layer = image.convert("RGBA")
    bands: Any = layer.getextrema()  # of RGBA, a pair for each
    if bands[3][0] == 255:
        return layer.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
