"""Bytes become an image of which only the header was read: a kind that is known, of a size that the machine can bear."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator

from PIL import Image

from plm_model.media.file_kind import file_kind

MAX_PIXELS = 178_956_970  # Pillow by itself refuses more
MAX_BYTES = 4 * MAX_PIXELS  # of memory that decoding to RGB may take: 716 MB
# Bytes a pixel at the peak of decoding an image of this mode to RGB, which itself takes 4.
BYTES = {"1": 5, "L": 5, "P": 5, "RGB": 4, "RGBX": 4, "I;16": 7, "I;16B": 7, "I;16L": 7, "I": 9, "F": 8}
OTHER_BYTES = 8  # CMYK, YCbCr, and all with alpha: as stored, and as RGB
FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "GIF",
    "TIFF",
    "BMP",
    "PPM",
    "JPEG2000",
    "AVIF",
)  # none that starts a program, as EPS does

# Pillow's own warning comes from 89 million pixels on, without the file's name; preprocessing counts those by name.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


class ImageError(ValueError):
    """Bytes that are not a whole image, or an image that is too large; the message says which."""


def opened(data: bytes) -> Image.Image:
    """The image with only its header read, checked for size."""
    if not data:
        raise ImageError("empty file")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError(f"image too large: {error}") from error
    except Exception as error:
        raise ImageError(f"not an image that can be read{cause(data)}") from error
    require_bearable(image)
    return image


def cause(data: bytes) -> str:
    """What the bytes are instead, to follow a message; empty where they do not tell."""
    kind = file_kind(data)
    if kind.startswith("a video"):
        return f": it is {kind}, which belongs under `video`"
    return f": it is {kind}" + (" that is damaged" if kind.endswith(" picture") else "") if kind else ""


def require_bearable(image: Image.Image) -> None:
    """ImageError when the image has too many pixels, or decoding them takes too much memory in its mode."""
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        raise ImageError(f"image too large: {image.width}x{image.height} is more than {MAX_PIXELS:,} pixels")
    needed = pixels * bytes_a_pixel(image)
    if needed > MAX_BYTES:
        raise ImageError(
            f"image too large: {image.width}x{image.height} of mode {image.mode} takes {needed >> 20:,} MB to decode, more "
            f"than {MAX_BYTES >> 20:,}"
        )


def bytes_a_pixel(image: Image.Image) -> int:
    if image.has_transparency_data and image.mode in ("1", "L", "P", "RGB"):
        return OTHER_BYTES
    return BYTES.get(image.mode, OTHER_BYTES)


@contextlib.contextmanager
def naming_damage() -> Iterator[None]:
    """Turn whatever a decoder raises into an ImageError: OSError, SyntaxError, ValueError, struct.error, ..."""
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        raise ImageError(f"damaged image: {error}") from error
