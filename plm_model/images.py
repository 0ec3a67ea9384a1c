"""Encoded image bytes become tiles: uint8 squares of the vision tower's size, a thumbnail first.

Which grid an image is cut into follows the reference processor exactly, its quirk included: a small image is blown up
to the whole budget of tiles, a very large one gets fewer. Worked example: 640x480 with at most 36 tiles becomes 7
columns x 5 rows, which with the thumbnail makes 36 tiles.
"""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageOps

from plm_model.config import ProcessorConfig

MAX_PIXELS = 200_000_000  # 14,000 x 14,000; as RGB 600 MB, the most that decoding one image may cost


class ImageError(ValueError):
    """Bytes that are not a whole image, or an image that is too large; the message says which."""


def image_size_of(data: bytes) -> tuple[int, int]:
    """Width and height as `decode_image` will give them (EXIF orientation applied), read from the header alone."""
    with opened(data) as image:
        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        return (image.height, image.width) if turned else image.size


def decode_image(data: bytes) -> Image.Image:
    """Decode to an upright RGB image.

    EXIF orientation is applied; transparency is laid on white; 16-bit grey is scaled to 8 bits; palette and CMYK are
    converted; of an animation the first frame is taken. ImageError when the data is empty, cut short, no image or too
    large.
    """
    try:
        with opened(data) as image:
            image.load()
            return to_rgb(ImageOps.exif_transpose(image))
    except ImageError:
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, ... on damaged data
        raise ImageError(f"damaged image: {error}") from error


def opened(data: bytes) -> Image.Image:
    """The image with only its header read, checked for size."""
    if not data:
        raise ImageError("empty file")
    try:
        image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise ImageError(f"image too large: {error}") from error
    except Exception as error:
        raise ImageError("not an image that can be read") from error
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"image too large: {image.width}x{image.height} is more than {MAX_PIXELS:,} pixels")
    return image


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL mode to RGB; what conversion would silently clip or drop is handled on purpose."""
    if image.mode.startswith("I") or image.mode == "F":
        # PIL clips these to 255; they hold 16-bit grey (mode I also comes from 16-bit PNG).
        grey = np.asarray(image).astype(np.float64)
        scale = 65535.0 if grey.max(initial=0.0) > 255 or image.mode.startswith("I;16") else 255.0
        return Image.fromarray((grey.clip(0, scale) * (255.0 / scale)).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "La", "RGBa", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        page = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(page, layer).convert("RGB")
    return image.convert("RGB")


def tile_image(image: Image.Image, processor: ProcessorConfig, image_size: int) -> np.ndarray:
    """Cut an RGB image into tiles: uint8 [tiles, 3, image_size, image_size], thumbnail first, then row by row.

    The image is squashed to the grid, as the model was trained; its aspect ratio is not kept.
    """
    thumbnail = squash(image, image_size, image_size)[None]
    if processor.vision_input_type == "tile":
        return thumbnail
    columns, rows = tile_grid(image.width, image.height, processor.max_num_tiles, image_size)
    whole = squash(image, columns * image_size, rows * image_size)
    grid = whole.reshape(3, rows, image_size, columns, image_size).transpose(1, 3, 0, 2, 4)
    return np.concatenate([thumbnail, grid.reshape(-1, 3, image_size, image_size)])


def tile_count(width: int, height: int, processor: ProcessorConfig, image_size: int) -> int:
    """How many tiles `tile_image` makes of an image of that size."""
    if processor.vision_input_type == "tile":
        return 1
    columns, rows = tile_grid(width, height, processor.max_num_tiles, image_size)
    return 1 + columns * rows


def tile_images(images: Sequence[bytes], processor: ProcessorConfig, image_size: int) -> np.ndarray:
    """Decode and cut all images of one record: uint8 [tiles, 3, image_size, image_size]; zero tiles without images."""
    each = processor_for(processor, len(images))
    tiles = [tile_image(decode_image(data), each, image_size) for data in images]
    return np.concatenate(tiles) if tiles else np.zeros((0, 3, image_size, image_size), np.uint8)


def tile_counts(sizes: Sequence[tuple[int, int]], processor: ProcessorConfig, image_size: int) -> list[int]:
    """How many tiles each image of one record becomes; `sizes` are (width, height)."""
    each = processor_for(processor, len(sizes))
    return [tile_count(width, height, each, image_size) for width, height in sizes]


def processor_for(processor: ProcessorConfig, images: int) -> ProcessorConfig:
    """Several images in one record are one tile each, whatever a single image would be."""
    return processor if images <= 1 else dataclasses.replace(processor, vision_input_type="tile")


def squash(image: Image.Image, width: int, height: int) -> np.ndarray:
    """Resize without keeping the aspect ratio: uint8 [3, height, width]."""
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(resized, np.uint8).transpose(2, 0, 1))


@lru_cache(maxsize=16)
def arrangements(max_num_tiles: int) -> tuple[tuple[float, tuple[tuple[int, int], ...]], ...]:
    """All grids (columns, rows) of at most so many tiles, grouped by columns / rows in the order that settles ties."""
    groups: dict[float, list[tuple[int, int]]] = {}
    for count in range(max_num_tiles, 0, -1):
        for columns in (c for c in range(1, count + 1) if count % c == 0):
            rows = count // columns
            groups.setdefault(columns / rows, []).append((columns, rows))
    return tuple((ratio, tuple(grids)) for ratio, grids in groups.items())


@lru_cache(maxsize=4096)
def tile_grid(width: int, height: int, max_num_tiles: int, image_size: int) -> tuple[int, int]:
    """Columns and rows for an image: the grid that shows it largest without shrinking it, else the closest in shape."""
    return fitting_grid(width, height, max_num_tiles, image_size) or closest_grid(width, height, max_num_tiles)


def fitting_grid(width: int, height: int, max_num_tiles: int, image_size: int) -> tuple[int, int] | None:
    """Among the grids the image fits into, the one where its short side gets longest; the later of equals."""
    aspect = width / height
    best, best_side = None, -1.0
    for _, grids in arrangements(max_num_tiles):
        for columns, rows in grids:
            if columns * image_size < width or rows * image_size < height:
                continue
            side = short_side(width, height, columns * image_size, rows * image_size, aspect)
            if side >= best_side:
                best, best_side = (columns, rows), side
    return best


def short_side(width: int, height: int, canvas_width: int, canvas_height: int, aspect: float) -> float:
    """Length of the image's shorter side when scaled, shape kept, to fill the canvas; the derived side is floored."""
    ratio = min(canvas_width / width, canvas_height / height)
    if aspect > 1.0:
        return math.floor(width * ratio / aspect)
    new_height = height * ratio
    return math.floor(new_height * aspect) if aspect < 1.0 else new_height


def closest_grid(width: int, height: int, max_num_tiles: int) -> tuple[int, int]:
    """For an image larger than every grid: the closest shape that is not longer than the image's, at its largest."""
    aspect = width / height
    groups = dict(arrangements(max_num_tiles))
    if aspect >= 1.0:
        return max(groups[max(ratio for ratio in groups if ratio <= aspect)], key=lambda grid: grid[0])
    taller = min((ratio for ratio in groups if ratio > aspect), key=lambda ratio: abs(1 / ratio - 1 / aspect))
    return max(groups[taller], key=lambda grid: grid[1])
