"""What is odd about pictures that can be shown, and what files are that are none."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image, ImageDraw

from plm_model.media.file_kind import file_kind
from plm_model.media.image_file import ImageError
from plm_model.media.picture_check import is_blank_video, look
from tests.plm_model.picture_files import encoded

HOLE = 3_000  # bytes


def photograph() -> Image.Image:
    noise = np.random.default_rng(3).integers(0, 256, (60, 80, 3), np.uint8)
    return Image.fromarray(noise).resize((640, 480), Image.Resampling.BICUBIC)


JPEG = encoded(photograph(), "JPEG", quality=90)
HALF = len(JPEG) // 2
FLIPPED = bytes(byte ^ 0x55 if n % 97 == 0 else byte for n, byte in enumerate(JPEG[HALF : HALF + HOLE]))


def without_end(data: bytes) -> bytes:
    """As a broken copy leaves it: the second half is zeros."""
    return data[: len(data) // 2] + bytes(len(data) - len(data) // 2)


DAMAGED = {
    "zeros inside": JPEG[:HALF] + bytes(HOLE) + JPEG[HALF + HOLE :],
    "flipped bytes": JPEG[:HALF] + FLIPPED + JPEG[HALF + HOLE :],
    "cut, with an end marker": JPEG[:HALF] + b"\xff\xd9",
    "WebP with an end of zeros": without_end(encoded(photograph(), "WEBP", quality=80)),
    "AVIF with an end of zeros": without_end(encoded(photograph(), "AVIF")),
}


@pytest.mark.case("D7")
@pytest.mark.parametrize("kind", DAMAGED)
def test_damage_that_decoders_forgive_is_named(kind: str) -> None:
    assert look(DAMAGED[kind]).size == (640, 480)
    assert look(DAMAGED[kind]).notes == {"damaged_picture"}


def good_pictures() -> dict[str, bytes]:
    """Whole pictures of many kinds."""
    image = photograph()
    exif = Image.Exif()
    exif[0x0112] = 6
    jpegs = {
        "baseline": {},
        "progressive": {"progressive": True},
        "4:4:4": {"subsampling": 0},
        "4:2:2": {"subsampling": 1},
        "coarse": {"quality": 5},
        "fine": {"quality": 100},
        "optimised": {"optimize": True},
        "restart markers": {"restart_marker_blocks": 4},
        "turned": {"exif": exif.tobytes()},
    }
    made = {name: encoded(image, "JPEG", **options) for name, options in jpegs.items()}
    made["grey"] = encoded(image.convert("L"), "JPEG")
    made["CMYK"] = encoded(image.convert("CMYK"), "JPEG")
    made["odd size"] = encoded(image.crop((0, 0, 61, 47)), "JPEG")
    made["camera"] = encoded(image, "MPO", save_all=True, append_images=[image])
    made["followed by another"] = JPEG + bytes(1000) + JPEG
    made |= {format: encoded(image, format) for format in ("PNG", "WEBP", "AVIF", "JPEG2000", "TIFF", "BMP", "GIF")}
    made["lossless WebP"] = encoded(image, "WEBP", lossless=True)
    return made


@pytest.mark.case("D7")
def test_whole_pictures_are_not_called_damaged() -> None:
    assert {name: look(data).notes for name, data in good_pictures().items() if look(data).notes} == {}


@pytest.mark.case("D7")
@pytest.mark.parametrize("options", [{"method": 0}, {"quality": 100, "method": 0}, {}], ids=str)
@pytest.mark.parametrize("height", [0, 240])
def test_a_plain_end_that_webp_writes_as_zeros_is_no_damage(height: int, options: dict[str, int]) -> None:
    image = Image.new("RGB", (640, 480), "white")
    image.paste(photograph().resize((640, height or 1)), (0, 0))
    assert "damaged_picture" not in look(encoded(image, "WEBP", **options)).notes


def with_words(background: tuple[int, ...], ink: tuple[int, ...]) -> Image.Image:
    image = Image.new("RGBA", (160, 120), background)
    ImageDraw.Draw(image).text((20, 40), "WORDS", fill=ink)
    return image


@pytest.mark.case("D8")
@pytest.mark.parametrize(
    ("data", "notes"),
    [
        (encoded(with_words((0, 0, 0, 0), (255, 255, 255, 255))), {"blank"}),
        (encoded(with_words((9, 9, 9, 0), (0, 0, 0, 0))), {"blank"}),
        (encoded(with_words((255, 255, 255, 255), (0, 0, 0, 255))), set()),
        (encoded(Image.new("RGB", (60, 40), "red")), {"blank"}),
        (
            encoded(Image.new("RGB", (80, 60)), "GIF", save_all=True, append_images=[photograph().resize((80, 60))]),
            {"blank"},
        ),
        (encoded(Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64))), {"dark_16_bit"}),
        (encoded(Image.fromarray(np.arange(256, dtype=np.int32).reshape(16, 16)), "TIFF"), {"blank", "dark_16_bit"}),
        (encoded(Image.fromarray((np.arange(4096) * 16).astype(np.uint16).reshape(64, 64))), set()),
    ],
    ids=["white on nothing", "nothing", "black on white", "red", "black first frame", "12 in 16", "8 in 32", "16 bits"],
)
def test_pictures_that_show_hardly_anything_are_named(data: bytes, notes: set[str]) -> None:
    assert look(data).notes == notes


def test_with_its_own_white_a_picture_of_twelve_bits_is_as_any() -> None:
    data = encoded(Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)))
    assert look(data, white=4095).notes == frozenset()


@pytest.mark.case("D8")
def test_a_video_is_blank_when_nothing_changes_in_it_and_nothing_is_in_it() -> None:
    tiles = np.zeros((4, 3, 8, 8), np.uint8)
    assert is_blank_video(tiles)
    tiles[3, 1, 2, 2] = 90
    assert not is_blank_video(tiles)


HEIC = struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + bytes(40)
MP4 = struct.pack(">I", 24) + b"ftypisom\0\0\0\0isommp42" + bytes(100)
NO_PICTURES = {
    "a HEIC picture, as phones make; save it as JPEG or PNG": HEIC,
    "a web page (HTML), as a failed download leaves it": b"\n<!DOCTYPE html><html>404</html>",
    "a Git LFS pointer; `git lfs pull` fetches the file itself": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d",
    "a PDF document; save its pages as pictures": b"%PDF-1.4\n",
    "a video (MP4 or QuickTime), which belongs under `video`": MP4,
    "an SVG drawing; save it as PNG": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "a JSON text, as a failed download leaves it": b'{"message": "Not Found"}',
    "a ZIP archive": b"PK\x03\x04" + bytes(60),
    "nothing but zero bytes, as a broken copy leaves it": bytes(5000),
    "a NumPy array; save it as PNG": b"\x93NUMPY\x01\x00" + bytes(60),
    "a DICOM file; save its picture as PNG": bytes(128) + b"DICM" + bytes(60),
    "a text": b"Access denied for user",
    "a PNG picture that is damaged": encoded(photograph())[:20],
}


@pytest.mark.case("D18")
@pytest.mark.parametrize("kind", NO_PICTURES)
def test_a_file_that_is_no_picture_is_called_what_it_is(kind: str) -> None:
    with pytest.raises(ImageError) as raised:
        look(NO_PICTURES[kind])
    assert str(raised.value) == f"not an image that can be read: it is {kind}"


def test_bytes_that_tell_nothing_are_called_nothing() -> None:
    assert file_kind(np.random.default_rng(0).bytes(500)) == ""
