"""Images and frames become tiles: uint8 squares of the vision tower's size, a thumbnail first.

An image is decoded once, resized once for its thumbnail and once for its grid, and cut; no number is a float before the
device. Worked example: 640x480 with at most 36 tiles is resized to 7 x 5 tiles, which with the thumbnail makes 36.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from plm_model.families.plm.settings import ProcessorConfig
from plm_model.families.plm.tile_grid import tile_grid
from plm_model.media.frame_table import Source
from plm_model.media.image_file import ImageError, opened
from plm_model.media.images import upright_rgb, upright_size
from plm_model.media.video import read_clip, squash_frame
from plm_model.records.regions import Box

MAX_WORK = 1_000_000_000  # multiplications that resizing a channel may take: 178 million pixels take 0.8


MAX_WIDE = 536_870_912  # bytes of the image between the two passes of resizing


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


def video_tiles(
    source: Source,
    processor: ProcessorConfig,
    image_size: int,
    start: float | None = None,
    end: float | None = None,
    boxes: Mapping[int, Box] | None = None,
    name: str | None = None,
    notes: set[str] | None = None,
) -> np.ndarray:
    """The tiles of a clip, one for each frame that the model sees: uint8 [frames, 3, image_size, image_size].

    Arguments and errors are those of `read_clip`.
    """

    def tile(frame: Image.Image) -> np.ndarray:
        return squash_frame(np.array(frame), image_size)

    return np.stack(read_clip(source, processor.max_video_frames, tile, start, end, boxes, name, notes))


def taps(old: int, new: int) -> int:
    """How many values Pillow's bicubic filter takes in for one."""
    return 2 * math.ceil(2 * max(1.0, old / new)) + 1


def squash(image: Image.Image, width: int, height: int) -> np.ndarray:
    """Resize an RGB image without keeping its aspect ratio: uint8 [3, height, width]."""
    tiles = np.empty((1, 3, height, width), np.uint8)
    cut(image, 1, 1, tiles)
    tile: np.ndarray = tiles[0]
    return tile


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
