"""Which grid of tiles an image is cut into: exactly the choice of the reference processor, for every size.

Its quirk is kept: a small image is blown up to the whole budget of tiles, a very large one gets fewer. Worked example:
640x480 with at most 36 tiles of 448 becomes 7 columns x 5 rows; 4032x3024 fits into no grid and becomes 4 x 3.
"""

from __future__ import annotations

import math
from functools import lru_cache


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
