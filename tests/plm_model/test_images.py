from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from plm_model import images
from plm_model.config import ProcessorConfig
from plm_model.images import (
    ImageError,
    decode_image,
    image_size_of,
    tile_count,
    tile_counts,
    tile_grid,
    tile_image,
    tile_images,
)

GRIDS = {  # width, height: columns x rows for at most 4, 9, 16 and 36 tiles of 448
    (224, 224): [(2, 2), (3, 3), (4, 4), (6, 6)],
    (512, 512): [(2, 2), (3, 3), (4, 4), (6, 6)],
    (640, 480): [(2, 2), (3, 3), (4, 3), (7, 5)],
    (1280, 720): [(2, 2), (4, 2), (5, 3), (8, 4)],
    (1920, 1080): [(2, 2), (3, 2), (5, 3), (8, 4)],
    (1700, 2200): [(2, 2), (3, 3), (4, 4), (5, 7)],
}
LARGE = {(2550, 3300): (4, 5), (4032, 3024): (4, 3)}
THUMB = ProcessorConfig(max_num_tiles=4)
SINGLE = ProcessorConfig(vision_input_type="tile")


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def pixel(data: bytes, at: tuple[int, int] = (0, 0)) -> tuple[int, ...]:
    image = decode_image(data)
    assert image.mode == "RGB"
    return image.getpixel(at)


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


def test_thumbnail_comes_first_then_tiles_row_by_row() -> None:
    quarters = np.zeros((8, 8, 3), np.uint8)
    quarters[:4, :4], quarters[:4, 4:], quarters[4:, :4], quarters[4:, 4:] = 10, 20, 30, 40
    image = Image.fromarray(quarters)
    tiles = tile_image(image, THUMB, 4)
    assert tiles.shape == (5, 3, 4, 4) and tiles.dtype == np.uint8
    assert [int(tile[0, 0, 0]) for tile in tiles[1:]] == [10, 20, 30, 40]
    assert (tiles[0] == np.asarray(image.resize((4, 4), Image.Resampling.BICUBIC)).transpose(2, 0, 1)).all()


@pytest.mark.parametrize("processor", [THUMB, SINGLE])
def test_count_is_known_from_the_size_alone(processor: ProcessorConfig) -> None:
    image = Image.new("RGB", (50, 20))
    assert tile_count(50, 20, processor, 16) == len(tile_image(image, processor, 16))


def test_several_images_are_one_tile_each() -> None:
    one = encoded(Image.new("RGB", (9, 9)))
    assert len(tile_images([one], THUMB, 8)) == tile_counts([(9, 9)], THUMB, 8)[0] == 5
    assert len(tile_images([one, one], THUMB, 8)) == 2
    assert tile_counts([(9, 9), (9, 9)], THUMB, 8) == [1, 1]
    assert tile_images([], THUMB, 8).shape == (0, 3, 8, 8)


def test_exif_orientation_is_applied() -> None:
    image = Image.new("RGB", (6, 4))
    image.putpixel((0, 3), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    data = encoded(image, exif=exif)
    assert decode_image(data).size == image_size_of(data) == (4, 6)
    assert pixel(data, (0, 0)) == (255, 255, 255)


def test_transparency_is_laid_on_white() -> None:
    assert pixel(encoded(Image.new("RGBA", (2, 2), (0, 0, 0, 0)))) == (255, 255, 255)
    assert pixel(encoded(Image.new("LA", (2, 2), (0, 0)))) == (255, 255, 255)


def test_transparent_palette_entry_is_white() -> None:
    image = Image.new("P", (2, 2), 0)
    image.putpalette([200, 0, 0, 0, 200, 0])
    assert pixel(encoded(image)) == (200, 0, 0)
    assert pixel(encoded(image, transparency=0)) == (255, 255, 255)


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    image = Image.fromarray(np.full((2, 2), 0x8080, np.uint16))
    assert pixel(encoded(image)) == (128, 128, 128)


def test_cmyk_and_grey_and_one_bit_become_rgb() -> None:
    red, green, blue = pixel(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    assert red > 200 and green < 60 and blue < 60
    assert pixel(encoded(Image.new("L", (2, 2), 7))) == (7, 7, 7)
    assert pixel(encoded(Image.new("1", (2, 2), 1))) == (255, 255, 255)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "WEBP"])
def test_truncated_image_is_an_error(format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), format)
    with pytest.raises(ImageError):
        decode_image(data[: len(data) // 2])


@pytest.mark.parametrize(("data", "message"), [(b"", "empty file"), (b"hello", "not an image")])
def test_no_image_is_an_error(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        decode_image(data)


def test_image_of_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    with pytest.raises(ImageError, match="20x10 is more than 100 pixels"):
        decode_image(encoded(Image.new("RGB", (20, 10))))


@pytest.mark.parametrize("most", [4, 16, 36])
def test_grid_equals_the_published_processor_for_random_sizes(most: int) -> None:
    from transformers.models.perception_lm.image_processing_perception_lm import PerceptionLMImageProcessor

    published = PerceptionLMImageProcessor(max_num_tiles=most, tile_size=448, vision_input_type="thumb+tile")
    sizes = (2 ** np.random.default_rng(most).uniform(3, 13, (150, 2))).astype(int).tolist()
    for width, height in sizes:
        asked = {"img_width": width, "img_height": height, "tile_size": 448}
        expected = published._fit_image_to_canvas(**asked) or published._find_closest_aspect_ratio(**asked)
        assert tile_grid(width, height, most, 448) == tuple(expected), (width, height)
