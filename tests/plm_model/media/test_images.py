from __future__ import annotations

import hashlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from plm_model.families.plm.settings import ProcessorConfig
from plm_model.families.plm.tile_grid import tile_grid
from plm_model.families.plm.tiles import require_affordable, tile_count, tile_counts, tile_image, tile_images
from plm_model.media.image_file import ImageError, opened
from plm_model.media.images import decode_image, to_rgb, upright_size, verified_size
from tests.plm_model.picture_files import encoded

THUMB = ProcessorConfig(max_num_tiles=4)
SINGLE = ProcessorConfig(vision_input_type="tile")
DCT = ProcessorConfig(max_num_tiles=4, jpeg_dct_scaling=True)


def pixel(data: bytes, at: tuple[int, int] = (0, 0)) -> tuple[int, ...]:
    image = decode_image(data)
    assert image.mode == "RGB"
    return image.getpixel(at)


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


def corner(orientation: int) -> bytes:
    """A 6x4 PNG with one white corner that every orientation takes to the upper left."""
    stored = {1: (0, 0), 2: (5, 0), 3: (5, 3), 4: (0, 3), 5: (0, 0), 6: (0, 3), 7: (5, 3), 8: (5, 0)}
    image = Image.new("RGB", (6, 4))
    image.putpixel(stored[orientation], (255, 255, 255))
    return encoded(image, exif=exif(orientation))


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(orientation: int) -> None:
    data = corner(orientation)
    image = decode_image(data)
    assert image.size == upright_size(opened(data)) == verified_size(data) == ((6, 4) if orientation < 5 else (4, 6))
    assert image.getpixel((0, 0)) == (255, 255, 255)
    assert (tile_image(image, SINGLE, 8) == tile_image(opened(data), SINGLE, 8)).all()


def test_unreadable_exif_leaves_the_image_as_it_is_stored() -> None:
    data = encoded(Image.new("RGB", (6, 4)), "JPEG", exif=b"Exif\0\0no TIFF header")
    assert decode_image(data).size == (6, 4)


def test_transparency_is_laid_on_white() -> None:
    assert pixel(encoded(Image.new("RGBA", (2, 2), (0, 0, 0, 0)))) == (255, 255, 255)
    assert pixel(encoded(Image.new("LA", (2, 2), (0, 0)))) == (255, 255, 255)


def test_transparent_palette_entry_is_white() -> None:
    image = Image.new("P", (2, 2), 0)
    image.putpalette([200, 0, 0, 0, 200, 0])
    assert pixel(encoded(image)) == (200, 0, 0)
    assert pixel(encoded(image, transparency=0)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGBa", "La", "PA"])
def test_every_mode_with_alpha_shows_white_where_it_is_transparent(mode: str) -> None:
    grey = Image.new("LA" if mode in ("La", "PA") else "RGBA", (2, 2))
    image = Image.new("PA", (2, 2)) if mode == "PA" else grey.convert(mode) if mode != grey.mode else grey
    assert to_rgb(image).getpixel((0, 0)) == (255, 255, 255)


def test_opaque_alpha_changes_no_pixel() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    image = Image.fromarray(noise).convert("RGBA")
    assert (np.asarray(decode_image(encoded(image))) == noise).all()


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
@pytest.mark.parametrize(("grey", "expected"), [(0x8080, 128), (100, 0), (65535, 255)])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(format: str, grey: int, expected: int) -> None:
    image = Image.fromarray(np.full((2, 2), grey, np.uint16))
    assert pixel(encoded(image, format)) == (expected,) * 3


def test_sixteen_bit_colour_keeps_its_high_bytes() -> None:
    assert pixel(sixteen_bit_png([0x80FF, 0x0100, 0xFFFF])) == (0x80, 0x01, 0xFF)


def sixteen_bit_png(colour: list[int]) -> bytes:
    """A PNG of one RGB pixel; PIL cannot write 16 bits of colour."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))]
    parts += [(b"IDAT", zlib.compress(b"\0" + struct.pack(">3H", *colour))), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((2, 2), 0.5, np.float32), "floating-point"),
        (np.full((2, 2), 70000, np.int32), "from 70000 to 70000"),
        (np.full((2, 2), -1, np.int32), "from -1 to -1"),
    ],
)
def test_grey_without_a_known_white_is_refused(values: np.ndarray, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        decode_image(encoded(Image.fromarray(values), "TIFF"))


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(format: str) -> None:
    frames = [Image.new("RGB", (8, 8), shade) for shade in ("red", "blue", "lime")]
    red, green, blue = pixel(encoded(frames[0], format, save_all=True, append_images=frames[1:]))
    assert red > 200 and green < 60 and blue < 60


def test_of_a_camera_file_of_several_pictures_the_first_is_taken() -> None:
    pictures = [Image.new("RGB", (16, 16), shade) for shade in ("red", "blue")]
    data = encoded(pictures[0], "MPO", save_all=True, append_images=pictures[1:])
    assert opened(data).format == "MPO"
    assert pixel(data)[0] > 200


def test_cmyk_and_grey_and_one_bit_become_rgb() -> None:
    red, green, blue = pixel(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    assert red > 200 and green < 60 and blue < 60
    assert pixel(encoded(Image.new("L", (2, 2), 7))) == (7, 7, 7)
    assert pixel(encoded(Image.new("1", (2, 2), 1))) == (255, 255, 255)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "WEBP"])
def test_truncated_image_is_an_error(format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), format)
    for read in (decode_image, verified_size, lambda data: tile_images([data], DCT, 16)):
        with pytest.raises(ImageError, match=r"damaged image|not an image"):
            read(data[: len(data) // 2])


def photograph(width: int, height: int, orientation: int = 1) -> bytes:
    """A smooth JPEG."""
    x, y = np.meshgrid(np.linspace(0, 6, width), np.linspace(0, 4, height))
    waves = np.stack([np.sin(x) + np.cos(y), np.sin(x * y), np.cos(x - y)], axis=-1)
    return encoded(Image.fromarray(((waves + 2) * 63).astype(np.uint8)), "JPEG", quality=92, exif=exif(orientation))


@pytest.mark.parametrize("orientation", [1, 6])
def test_dct_scaling_decodes_at_the_smallest_scale_not_below_the_tiles(orientation: int) -> None:
    image = opened(photograph(400, 300, orientation))
    tiles = tile_image(image, DCT, 32)  # grids of at most 4 tiles of 32: at most 128 pixels a side
    columns, rows = tile_grid(*((400, 300) if orientation == 1 else (300, 400)), 4, 32)
    stored = (columns * 32, rows * 32) if orientation == 1 else (rows * 32, columns * 32)
    assert len(tiles) == 1 + columns * rows
    assert image.size[0] < 400 and all(has >= needs for has, needs in zip(image.size, stored, strict=True))


@pytest.mark.parametrize("orientation", [1, 6])
def test_dct_scaling_changes_neither_the_number_of_tiles_nor_what_they_show(orientation: int) -> None:
    data = photograph(400, 300, orientation)
    exact, scaled = tile_images([data], THUMB, 32), tile_images([data], DCT, 32)
    assert exact.shape == scaled.shape
    difference = np.abs(exact.astype(int) - scaled)
    assert 0 < difference.mean() < 2


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_dct_scaling_leaves_alone_what_it_cannot_make_faster(format: str) -> None:
    image = Image.open(io.BytesIO(photograph(120, 90)))
    data = encoded(image.resize((1200, 900)) if format == "PNG" else image, format)
    assert (tile_images([data], THUMB, 64) == tile_images([data], DCT, 64)).all()


@pytest.mark.case("E19")
@pytest.mark.parametrize("size", [(640, 480), (300, 500), (33, 21), (90, 1200)])
def test_tiles_are_the_pixels_of_the_image_resized_in_width_and_then_in_height(size: tuple[int, int]) -> None:
    data = photograph(*size)
    columns, rows = tile_grid(*size, 4, 28)
    wide = Image.open(io.BytesIO(data)).resize((columns * 28, size[1]), Image.Resampling.BICUBIC)
    whole = wide.resize((columns * 28, rows * 28), Image.Resampling.BICUBIC)
    tiles = tile_images([data], THUMB, 28)
    for number, tile in enumerate(tiles[1:]):
        x, y = number % columns * 28, number // columns * 28
        assert (tile.transpose(1, 2, 0) == np.asarray(whole.crop((x, y, x + 28, y + 28)))).all()


# What Pillow 12's own `resize` makes, whose order we keep whatever Pillow does: of a landscape, a portrait and a tall strip.
CHECKSUMS = {(64, 48): "6531110341361d30", (48, 64): "d7c3e568eda7e840", (20, 300): "f260cac2f20b8987"}


@pytest.mark.case("E19")
@pytest.mark.parametrize("size", CHECKSUMS)
def test_tiles_are_byte_for_byte_those_of_the_pillow_that_the_model_was_trained_with(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(5).integers(0, 256, (size[1], size[0], 3), np.uint8)
    tiles = tile_images([encoded(Image.fromarray(noise))], THUMB, 28)
    assert hashlib.sha256(tiles.tobytes()).hexdigest()[:16] == CHECKSUMS[size]


@pytest.mark.case("D9")
@pytest.mark.parametrize("size", [(1, 1_000_000), (3, 400_000)])
def test_what_costs_too_much_to_resize_is_refused_by_its_size_alone(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=rf"{size[0]}x{size[1]} is too long for its width; cut it into parts"):
        require_affordable(*size, ProcessorConfig(), 448)


@pytest.mark.parametrize("size", [(1, 1), (65_000, 1), (1, 5_000), (1080, 30_000), (16_384, 10_922), (10_922, 16_384)])
def test_what_people_have_can_be_resized(size: tuple[int, int]) -> None:
    require_affordable(*size, ProcessorConfig(), 448)


@pytest.mark.case("D8")
def test_a_processor_may_say_what_is_white_of_sixteen_bits() -> None:
    ramp = np.linspace(0, 4095, 64 * 48).reshape(48, 64).astype(np.uint16)
    twelve = ProcessorConfig(vision_input_type="tile", sixteen_bit_white=4095)
    (tile,) = tile_images([encoded(Image.fromarray(ramp))], twelve, 48)
    eight = Image.fromarray(np.round(ramp / 4095 * 255).astype(np.uint8)).convert("RGB")
    (expected,) = tile_images([encoded(eight)], SINGLE, 48)
    assert (tile == expected).all()
    assert (tile.min(), tile.max()) == (0, 255)


def test_bands_change_no_pixel() -> None:
    noise = np.random.default_rng(3).integers(0, 256, (700, 30, 4), np.uint8)
    image = Image.fromarray(noise, "RGBA")
    whole = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    assert (np.asarray(decode_image(encoded(image))) == np.asarray(whole)).all()
