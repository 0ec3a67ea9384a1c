"""What is no image, or more than the machine can bear, is refused by its header."""

from __future__ import annotations

import subprocess
import sys

import pytest
from PIL import Image

from plm_model.media import image_file
from plm_model.media.image_file import ImageError, require_bearable
from plm_model.media.images import decode_image, verified_size
from tests.plm_model.picture_files import encoded

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"  # PIL would start Ghostscript on it


@pytest.mark.parametrize(("data", "message"), [(b"", "empty file"), (b"hello", "not an image"), (EPS, "not an image")])
def test_no_image_is_an_error(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        decode_image(data)


def test_image_of_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_file, "MAX_PIXELS", 100)
    with pytest.raises(ImageError, match="20x10 is more than 100 pixels"):
        decode_image(encoded(Image.new("RGB", (20, 10))))


def test_image_beyond_what_pillow_opens_is_refused_with_the_same_words() -> None:
    data = encoded(Image.new("1", (13_400, 13_400)))
    with pytest.raises(ImageError, match="image too large"):
        verified_size(data)


@pytest.mark.case("R13")
@pytest.mark.parametrize(
    ("mode", "side"),
    [("RGB", 13_377), ("RGBA", 9_459), ("LA", 9_459), ("CMYK", 9_459), ("L", 11_965), ("I;16", 10_112)],
)
def test_the_bound_is_memory_which_depends_on_the_mode(mode: str, side: int) -> None:
    require_bearable(Image.new(mode, (side // 100, side)).resize((1, 1)))  # a mode that Pillow has
    header = Image.new(mode, (1, 1))
    for pixels, fits in ((side, True), (side + 1, False)):
        header._size = (pixels, pixels)  # as `Image.open` leaves it: a header without pixels
        if fits:
            require_bearable(header)
        else:
            with pytest.raises(ImageError, match=f"{pixels}x{pixels} .*more than"):
                require_bearable(header)


@pytest.mark.case("R13")
@pytest.mark.parametrize(("mode", "most"), [("RGBA", 9), ("LA", 9), ("I;16", 8)])
def test_decoding_takes_no_more_memory_than_the_bound_says(mode: str, most: float) -> None:
    side = 2_000
    data = encoded(Image.new(mode, (side, side)), compress_level=1)
    command = [sys.executable, "-c", MEASURE, mode]
    done = subprocess.run(command, input=data, capture_output=True, check=True)
    assert float(done.stdout) / side**2 <= most


MEASURE = """
import resource, sys
from plm_model.media.images import decode_image
from PIL import Image
import io
data = sys.stdin.buffer.read()
small = io.BytesIO(); Image.new(sys.argv[1], (300, 300)).save(small, "PNG"); decode_image(small.getvalue())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
decode_image(data)
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""
