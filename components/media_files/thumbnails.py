"""Pictures small enough for a page, as data URIs, so that the page needs no other file."""

from __future__ import annotations

import base64
import io
from typing import Any

from plm_model.media.images import decode_image

SIDE = 320  # pixels of the longer side


def thumbnail(data: bytes, side: int = SIDE) -> dict[str, Any]:
    """A picture as a data URI, at most `side` pixels wide and high; a small one stays as it is, for sharp pixels."""
    image = decode_image(data)
    small = max(image.size) <= side // 2
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    if small:
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "JPEG", quality=82)
    return {"uri": data_uri(buffer.getvalue(), "image/png" if small else "image/jpeg"), "small": small}


def data_uri(data: bytes, kind: str) -> str:
    """Bytes of a media type (`image/png`) inside an address."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
