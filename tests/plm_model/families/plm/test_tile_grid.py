from __future__ import annotations

import numpy as np
import pytest

from plm_model.families.plm.tile_grid import tile_grid

GRIDS = {  # width, height: columns x rows for at most 4, 9, 16 and 36 tiles of 448
    (224, 224): [(2, 2), (3, 3), (4, 4), (6, 6)],
    (512, 512): [(2, 2), (3, 3), (4, 4), (6, 6)],
    (640, 480): [(2, 2), (3, 3), (4, 3), (7, 5)],
    (1280, 720): [(2, 2), (4, 2), (5, 3), (8, 4)],
    (1920, 1080): [(2, 2), (3, 2), (5, 3), (8, 4)],
    (1700, 2200): [(2, 2), (3, 3), (4, 4), (5, 7)],
}
LARGE = {(2550, 3300): (4, 5), (4032, 3024): (4, 3)}


@pytest.mark.parametrize("size", GRIDS)
def test_grid_of_the_reference(size: tuple[int, int]) -> None:
    assert [tile_grid(*size, most, 448) for most in (4, 9, 16, 36)] == GRIDS[size]


@pytest.mark.parametrize("size", LARGE)
def test_image_larger_than_every_grid_gets_the_closest_shape(size: tuple[int, int]) -> None:
    assert tile_grid(*size, 36, 448) == LARGE[size]


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1)])
def test_extreme_shapes_have_a_grid(size: tuple[int, int]) -> None:
    columns, rows = tile_grid(*size, 4, 448)
    assert 1 <= columns * rows <= 4


@pytest.mark.parametrize("most", [16, 36])
def test_grid_equals_the_published_processor_for_3000_random_sizes(most: int) -> None:
    from transformers.models.perception_lm.image_processing_perception_lm import PerceptionLMImageProcessor

    published = PerceptionLMImageProcessor(max_num_tiles=most, tile_size=448, vision_input_type="thumb+tile")
    sizes = (2 ** np.random.default_rng(most).uniform(3, 13, (3000, 2))).astype(int).tolist()
    for width, height in sizes:
        asked = {"img_width": width, "img_height": height, "tile_size": 448}
        expected = published._fit_image_to_canvas(**asked) or published._find_closest_aspect_ratio(**asked)
        assert tile_grid(width, height, most, 448) == tuple(expected), (width, height)
