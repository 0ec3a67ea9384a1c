"""The Perception Encoder against formulas written out slowly."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from plm_model.families.plm.settings import VisionConfig
from plm_model.families.plm.vision import (
    VisionBlock,
    VisionTransformer,
    average_pool,
    normalise,
    patches,
    vision_rotary,
)

TINY = VisionConfig(image_size=56, patch_size=14, width=64, layers=2, heads=4, drop_path=0.0)


def turned(vector: list[float], x: int, y: int) -> list[float]:
    """One head vector after 2-D RoPE: first half by x, second half by y, pairs (a, b) -> (a, b) turned by position * f_i."""
    half, result = len(vector) // 2, []
    for position, part in ((x, vector[:half]), (y, vector[half:])):
        for i in range(half // 2):
            angle = position * 10000 ** (-2 * i / half)
            a, b = part[2 * i], part[2 * i + 1]
            result += [a * math.cos(angle) - b * math.sin(angle), b * math.cos(angle) + a * math.sin(angle)]
    return result


@pytest.mark.parametrize("class_token", [True, False])
def test_two_dimensional_rope_equals_the_written_formula(class_token: bool) -> None:
    rows, columns, width = 3, 2, 8
    places = [(x, y) for y in range(rows) for x in range(columns)]
    if class_token:
        places = [(0, 0)] + [(x + 1, y + 1) for x, y in places]
    heads = torch.randn(len(places), 1, width, dtype=torch.float64)
    slow = [turned(head[0].tolist(), x, y) for head, (x, y) in zip(heads, places, strict=True)]
    expected = torch.tensor(slow, dtype=torch.float64)
    rotated = vision_rotary(rows, columns, width, class_token, "cpu").rotate(heads)
    torch.testing.assert_close(rotated[:, 0], expected, atol=1e-6, rtol=0)


def test_rope_of_half_precision_inputs_uses_full_precision_angles() -> None:
    rotary = vision_rotary(32, 32, 64, True, "cpu")
    x = torch.randn(1025, 2, 64)
    exact = rotary.rotate(x.bfloat16().double())
    torch.testing.assert_close(rotary.rotate(x.bfloat16()).double(), exact, atol=0.02, rtol=0.004)
    assert rotary.rotate(x.bfloat16()).dtype == torch.bfloat16


def test_cutting_patches_equals_the_strided_convolution() -> None:
    tiles = torch.randint(0, 256, (2, 3, 56, 56), dtype=torch.uint8)
    weight = torch.randn(8, 3, 14, 14)
    convolved = F.conv2d((tiles / 255 - 0.5) / 0.5, weight, stride=14).flatten(2).transpose(1, 2)
    cut = F.linear(normalise(patches(tiles, 14), torch.float32), weight.flatten(1))
    torch.testing.assert_close(cut, convolved, atol=1e-4, rtol=1e-4)


def test_a_tile_that_does_not_divide_into_patches_is_refused() -> None:
    with pytest.raises(ValueError, match="60 x 56"):
        patches(torch.zeros(1, 3, 60, 56, dtype=torch.uint8), 14)


@pytest.mark.parametrize("class_token", [True, False])
def test_one_feature_per_patch(class_token: bool) -> None:
    tower = VisionTransformer(replace(TINY, use_cls_token=class_token))
    assert tower(torch.zeros(3, 3, 56, 56, dtype=torch.uint8)).shape == (3, 16, 64)


def test_positions_are_interpolated_for_another_grid_and_the_class_slot_is_kept() -> None:
    tower = VisionTransformer(TINY)
    torch.nn.init.normal_(tower.positional_embedding)
    own = tower.positions(4, 4)
    bigger = tower.positions(8, 6)
    assert bigger.shape == (1 + 48, 64)
    assert torch.equal(bigger[0], own[0])
    expected = F.interpolate(own[1:].T.reshape(1, 64, 4, 4), size=(8, 6), mode="bilinear", align_corners=False)
    torch.testing.assert_close(bigger[1:], expected[0].flatten(1).T)


def test_dropped_branches_are_dropped_for_whole_tiles_and_the_rest_is_scaled_up() -> None:
    block = VisionBlock(replace(TINY, drop_path=0.25))
    torch.manual_seed(0)
    dropped = block.drop(torch.ones(4000, 2, 3))
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert torch.equal(dropped.amin(dim=(1, 2)), dropped.amax(dim=(1, 2)))
    assert dropped.mean() == pytest.approx(1.0, abs=0.05)


def test_nothing_is_dropped_in_evaluation() -> None:
    block = VisionBlock(replace(TINY, drop_path=0.9)).eval()
    assert torch.equal(block.drop(torch.ones(10, 2, 3)), torch.ones(10, 2, 3))


def test_pooling_is_the_mean_of_squares_row_by_row() -> None:
    grid = torch.arange(16.0).reshape(1, 16, 1)  # rows of 4
    assert average_pool(grid, 4, 4, 2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert average_pool(grid, 4, 4, 1).equal(grid)


def test_pooling_equals_adaptive_average_pooling() -> None:
    x = torch.randn(2, 24, 5)
    expected = F.adaptive_avg_pool2d(x.transpose(1, 2).reshape(2, 5, 4, 6), (2, 3)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(average_pool(x, 4, 6, 2), expected)
