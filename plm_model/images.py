"""Encoded image bytes become tiles: uint8 squares of the vision tower's size, a thumbnail first.

An image is decoded once, resized once for its thumbnail and once for its grid, and cut; no number is a float before the
device. Worked example: 640x480 with at most 36 tiles is resized to 7 x 5 tiles, which with the thumbnail makes 36.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageOps

from plm_model.config import ProcessorConfig
from plm_model.tile_grid import tile_grid

MAX_PIXELS = 178_956_970  # as RGB 537 MB, the most that decoding one image may cost; Pillow by itself refuses more
FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "GIF",
    "TIFF",
    "BMP",
    "PPM",
    "JPEG2000",
    "AVIF",
)  # none that starts a program, as EPS does
ORIENTATION = 0x0112  # the EXIF tag; from 5 on, width and height are swapped


class ImageError(ValueError):
    """Bytes that are not a whole image, or an image that is too large; the message says which."""


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
    image = upright_rgb(image, target if processor.jpeg_dct_scaling else None)
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


def squash(image: Image.Image, width: int, height: int) -> np.ndarray:
    """Resize an RGB image without keeping its aspect ratio: uint8 [3, height, width]."""
    tiles = np.empty((1, 3, height, width), np.uint8)
    cut(image, 1, 1, tiles)
    return tiles[0]


def cut(image: Image.Image, columns: int, rows: int, tiles: np.ndarray) -> None:
    """Resize an RGB image to a grid and write its tiles, uint8 [rows * columns, 3, height, width], row by row.

    Pillow resizes first in width, then in height, rounding to uint8 in between. So each column of tiles can be resized in
    height by itself: the pixels are those of `image.resize` in one go, and what is written stays small enough for the cache.
    """
    height, width = tiles.shape[2:]
    grid = tiles.reshape(rows, columns, 3, height, width)
    wide = image.resize((columns * width, image.height), Image.Resampling.BICUBIC)
    for column in range(columns):
        strip = wide.crop((column * width, 0, (column + 1) * width, image.height)) if columns > 1 else wide
        strip = strip.resize((width, rows * height), Image.Resampling.BICUBIC)
        for channel, name in enumerate("RGB"):
            grid[:, column, channel] = np.frombuffer(strip.tobytes("raw", name), np.uint8).reshape(rows, height, width)


def opened(data: bytes) -> Image.Image:
    """The image with only its header read, checked for size."""
    if not data:
        raise ImageError("empty file")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError(f"image too large: {error}") from error
    except Exception as error:
        raise ImageError("not an image that can be read") from error
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"image too large: {image.width}x{image.height} is more than {MAX_PIXELS:,} pixels")
    return image


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height with EXIF orientation applied; of a JPEG only the header is read for it."""
    return image.size[::-1] if orientation(image) >= 5 else image.size


def upright_rgb(image: Image.Image, at_least: tuple[int, int] | None = None) -> Image.Image:
    """Decode, turn and convert to RGB; an image that is all of this already is returned as it is.

    With `at_least`, a width and height, a JPEG that was not decoded yet is decoded at the smallest of 1/8, 1/4, 1/2 and 1
    of its size that is not below them. ImageError when it is damaged.
    """
    with naming_damage():
        turned = orientation(image)
        if at_least is not None:
            image.draft(None, at_least[::-1] if turned >= 5 else at_least)
        image.load()
        return to_rgb(ImageOps.exif_transpose(image) if turned > 1 else image)


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


@contextlib.contextmanager
def naming_damage() -> Iterator[None]:
    """Turn whatever a decoder raises into an ImageError: OSError, SyntaxError, ValueError, struct.error, ..."""
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        raise ImageError(f"damaged image: {error}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL mode to RGB; what conversion would silently clip or drop is handled on purpose."""
    if image.mode.startswith("I"):
        return eight_bits(image).convert("RGB")
    if image.mode == "F":
        raise ImageError(
            "grey values are floating-point numbers, of which nobody says what is white; store 8 or 16 bits"
        )
    if image.has_transparency_data:
        return on_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey (also in PIL's 32-bit mode I) scaled to 8 bits, 65535 to 255; PIL itself would clip at 255."""
    grey = np.asarray(image)
    if image.mode == "I" and (grey.min() < 0 or grey.max() > 65535):
        raise ImageError(f"grey values from {grey.min()} to {grey.max()} do not fit into 16 bits; store 8 or 16 bits")
    return Image.fromarray(((grey.astype(np.uint32) + 128) // 257).astype(np.uint8))


def on_white(image: Image.Image) -> Image.Image:
    """What is transparent shows white paper."""
    if image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    layer = image.convert("RGBA")
    if layer.getextrema()[3][0] == 255:
        return layer.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
