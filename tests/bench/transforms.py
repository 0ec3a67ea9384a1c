"""A JPEG photograph to the tiles of a 36-tile model: our path against the straightforward one that stands below, same pixels.

    python tests/bench/transforms.py --json

Both begin with the bytes of the file, use one thread, decode once and resize with Pillow's bicubic filter. The straightforward
path makes normalised float32 of each tile with torchvision's ToTensor and Normalize and stacks them; ours ends in uint8, which
the vision tower normalises on its device. The paths take turns and each ratio is one of medians of CPU time, so that a busy
machine meets all of them. `raw` also has the straightforward path with numpy in torchvision's place.
"""

from __future__ import annotations

import io
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from torchvision.transforms import Compose, Normalize, ToTensor

from plm_model.families.plm.settings import ProcessorConfig
from plm_model.families.plm.tile_grid import tile_grid
from plm_model.families.plm.tiles import tile_images
from tests.bench._evidence import bench, evidence

SIDE = 448
EXACT = ProcessorConfig(max_num_tiles=36)
SCALED = replace(EXACT, jpeg_dct_scaling=True)
SIZES = ((640, 480), (1920, 1080), (4032, 3024), (3024, 4032))
QUALITY = 90
BICUBIC = Image.Resampling.BICUBIC


def straightforward(data: bytes, normalised: Callable[[Image.Image], torch.Tensor]) -> torch.Tensor:
    """float32 [tiles, 3, side, side], normalised tile by tile, the thumbnail made and normalised apart."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    columns, rows = tile_grid(*image.size, EXACT.max_num_tiles, SIDE)
    tiles = [normalised(resized(image, SIDE, SIDE))]
    whole = resized(image, columns * SIDE, rows * SIDE)
    for top in range(0, rows * SIDE, SIDE):
        for left in range(0, columns * SIDE, SIDE):
            tiles.append(normalised(whole.crop((left, top, left + SIDE, top + SIDE))))
    return torch.stack(tiles)


def resized(image: Image.Image, width: int, height: int) -> Image.Image:
    """In width, then in height, as Pillow up to 12 did by itself; from 13 on it takes a tall image in height first."""
    return image.resize((width, image.height), BICUBIC).resize((width, height), BICUBIC)


with_torchvision = Compose([ToTensor(), Normalize([0.5] * 3, [0.5] * 3)])


def with_numpy(tile: Image.Image) -> torch.Tensor:
    pixels = np.asarray(tile).astype(np.float32) / 255
    return torch.from_numpy((pixels - 0.5) / 0.5).permute(2, 0, 1)


def ours(data: bytes) -> np.ndarray:
    return tile_images([data], EXACT, SIDE)


def ours_scaled(data: bytes) -> np.ndarray:
    return tile_images([data], SCALED, SIDE)


def photograph(width: int, height: int) -> bytes:
    """A real photograph, cropped to the shape and enlarged to the size, as JPEG."""
    from sklearn.datasets import load_sample_images

    image = Image.fromarray(load_sample_images().images[0])
    scale = min(image.width / width, image.height / height)
    box = (0, 0, int(width * scale), int(height * scale))
    buffer = io.BytesIO()
    image.resize((width, height), BICUBIC, box=box).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def require_equal_pixels(data: bytes) -> tuple[int, int]:
    """Bytes of their tiles and of ours; SystemExit unless ours, normalised in the same way, are theirs to the last bit."""
    tiles = torch.from_numpy(ours(data))
    ours_normalised = (tiles.float() / 255 - 0.5) / 0.5
    for normalised in (with_torchvision, with_numpy):
        if not torch.equal(straightforward(data, normalised), ours_normalised):
            raise SystemExit("the paths give different pixels; the figures would mean nothing")
    return ours_normalised.nbytes, tiles.nbytes


def medians(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median CPU time of each in seconds; they take turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.process_time()
            run()
            times[name].append(time.process_time() - start)
    return {name: statistics.median(taken) for name, taken in times.items()}


def measure(rounds: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    ratio, raw = {}, {}
    for width, height in SIZES:
        size, data = f"{width}x{height}", photograph(width, height)
        their_bytes, our_bytes = require_equal_pixels(data)
        runs = {
            "straightforward": partial(straightforward, data, with_torchvision),
            "straightforward_with_numpy": partial(straightforward, data, with_numpy),
            "ours": partial(ours, data),
            "ours_dct_scaling": partial(ours_scaled, data),
        }
        seconds = medians(runs, rounds)
        ratio[size] = round(seconds["straightforward"] / seconds["ours"], 2)
        ratio[f"{size}_dct_scaling"] = round(seconds["straightforward"] / seconds["ours_dct_scaling"], 2)
        ratio[f"{size}_bytes"] = round(their_bytes / our_bytes, 2)
        raw[size] = {
            "cpu_milliseconds": {name: round(1000 * taken, 1) for name, taken in seconds.items()},
            "tiles": our_bytes // (3 * SIDE * SIDE),
            "jpeg_kilobytes": len(data) // 1024,
            "dct_scaling_mean_difference": round(mean_difference(data), 2),
        }
    return evidence(
        "transforms",
        f"1 thread, Pillow {PIL.__version__}, torchvision {torchvision.__version__}",
        "PIL resize, torchvision's ToTensor and Normalize per tile, thumbnail apart, stack; equal pixels",
        ratio,
        {**raw, "rounds": rounds},
    )


def mean_difference(data: bytes) -> float:
    """How far DCT scaling moves a value of 0 to 255 on average."""
    return float(np.abs(ours(data).astype(np.int16) - ours_scaled(data)).mean())


if __name__ == "__main__":
    bench(__doc__, measure, rounds=9)
