"""Encoded image bytes become tiles: uint8 squares of the vision tower's size, a thumbnail first.

An image is decoded once, resized once for its thumbnail and once for its grid, and cut; no number is a float before the
device. Worked example: 640x480 with at most 36 tiles is resized to 7 x 5 tiles, which with the thumbnail makes 36.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageOps

from plm_model.config import ProcessorConfig
from plm_model.image_file import ImageError, naming_damage, opened
from plm_model.tile_grid import tile_grid

ORIENTATION = 0x0112  # the EXIF tag; from 5 on, width and height are swapped
WHITE = 65535  # of 16-bit grey, unless a processor says otherwise
MAX_WORK = 1_000_000_000  # multiplications that resizing a channel may take: 178 million pixels take 0.8
MAX_WIDE = 536_870_912  # bytes of the image between the two passes of resizing
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


def tile_images(images: Sequence[bytes], processor: ProcessorConfig, image_size: int) -> np.ndarray:
    """Decode and cut all images of one record: uint8 [tiles, 3, image_size, image_size]; zero tiles without images."""
    each = processor_for(processor, len(images))
    tiles = []
    for data in images:
        with opened(data) as image:
            tiles.append(tile_image(image, each, image_size))
    if len(tiles) == 1:
        return tiles[0]
    return np.concatenate(tiles) if tiles else np.zeros((0, 3, image_size, image_size), np.uint8)


def tile_counts(sizes: Sequence[tuple[int, int]], processor: ProcessorConfig, image_size: int) -> list[int]:
    """How many tiles each image of one record becomes; `sizes` are (width, height)."""
    each = processor_for(processor, len(sizes))
    return [tile_count(width, height, each, image_size) for width, height in sizes]


def processor_for(processor: ProcessorConfig, images: int) -> ProcessorConfig:
    """Several images in one record are one tile each, whatever a single image would be."""
    return processor if images <= 1 else dataclasses.replace(processor, vision_input_type="tile")


def tile_image(image: Image.Image, processor: ProcessorConfig, image_size: int) -> np.ndarray:
    """Cut an image into tiles: uint8 [tiles, 3, image_size, image_size], thumbnail first, then row by row.

    The image is squashed to the grid, as the model was trained; its aspect ratio is not kept. It may be of any mode, and
    only `opened` yet: then a JPEG is decoded no larger than needed where `processor.jpeg_dct_scaling` allows that.
    ImageError when it turns out to be damaged.
    """
    columns, rows = grid_of(*upright_size(image), processor, image_size)
    target = (columns * image_size, rows * image_size)
    image = upright_rgb(image, target if processor.jpeg_dct_scaling else None, processor.sixteen_bit_white)
    if processor.vision_input_type == "tile":
        return squash(image, *target)[None]
    tiles = np.empty((1 + columns * rows, 3, image_size, image_size), np.uint8)
    cut(image, 1, 1, tiles[:1])
    cut(image, columns, rows, tiles[1:])
    return tiles


def tile_count(width: int, height: int, processor: ProcessorConfig, image_size: int) -> int:
    """How many tiles `tile_image` makes of an image of that size."""
    columns, rows = grid_of(width, height, processor, image_size)
    return columns * rows + (processor.vision_input_type == "thumb+tile")


def grid_of(width: int, height: int, processor: ProcessorConfig, image_size: int) -> tuple[int, int]:
    """Columns and rows of tiles, thumbnail not counted."""
    if processor.vision_input_type == "tile":
        return 1, 1
    return tile_grid(width, height, processor.max_num_tiles, image_size)


def require_affordable(width: int, height: int, processor: ProcessorConfig, image_size: int) -> None:
    """ImageError when resizing an image of that size to its tiles takes too much work or memory.

    A filter of 4 taps, more where the image is shrunk, goes over each value of both passes. Worked example: 1 x 1,000,000
    becomes 448 columns of a million rows first, which takes 1.8 GB and 2.2 billion multiplications.
    """
    columns, rows = grid_of(width, height, processor, image_size)
    wide, high = columns * image_size, rows * image_size
    work = wide * height * taps(width, wide) + wide * high * taps(height, high)
    if work > MAX_WORK or 4 * wide * height > MAX_WIDE:
        raise ImageError(f"image too large to resize: {width}x{height} is too long for its width; cut it into parts")


def taps(old: int, new: int) -> int:
    """How many values Pillow's bicubic filter takes in for one."""
    return 2 * math.ceil(2 * max(1.0, old / new)) + 1


def squash(image: Image.Image, width: int, height: int) -> np.ndarray:
    """Resize an RGB image without keeping its aspect ratio: uint8 [3, height, width]."""
    tiles = np.empty((1, 3, height, width), np.uint8)
    cut(image, 1, 1, tiles)
    return tiles[0]


def cut(image: Image.Image, columns: int, rows: int, tiles: np.ndarray) -> None:
    """Resize an RGB image to a grid and write its tiles, uint8 [rows * columns, 3, height, width], row by row.

    In width first, then in height, rounding to uint8 in between: the order of Pillow up to 12, with which the model was trained
    (from 13 on, `image.resize` takes a tall image in height first, which moves some values by 1). So each column of tiles is
    resized in height by itself, and what is written stays small enough for the cache.
    """
    height, width = tiles.shape[2:]
    grid = tiles.reshape(rows, columns, 3, height, width)
    wide = image.resize((columns * width, image.height), Image.Resampling.BICUBIC)
    for column in range(columns):
        strip = wide.crop((column * width, 0, (column + 1) * width, image.height)) if columns > 1 else wide
        strip = strip.resize((width, rows * height), Image.Resampling.BICUBIC)
        for channel, name in enumerate("RGB"):
            grid[:, column, channel] = np.frombuffer(strip.tobytes("raw", name), np.uint8).reshape(rows, height, width)


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
    if layer.getextrema()[3][0] == 255:
        return layer.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
