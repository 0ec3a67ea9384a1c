"""Pictures as the bytes of a file."""

from __future__ import annotations

import io

from PIL import Image


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    """The file that Pillow writes of an image."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()
