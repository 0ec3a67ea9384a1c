"""Small sound pictures and videos of many kinds, which the fuzz run then damages."""

from __future__ import annotations

import functools
import io
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

PICTURES = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
VIDEOS = (
    ("mp4", "libx264"),
    ("mkv", "libx264"),
    ("avi", "mpeg4"),
    ("mpg", "mpeg1video"),
    ("webm", "libvpx"),
    ("mov", "mjpeg"),
)


@functools.cache
def picture(number: int, kind: str = "PNG", size: tuple[int, int] = (48, 36)) -> bytes:
    """An encoded picture with texture, no two numbers alike."""
    y, x = np.mgrid[: size[1], : size[0]]
    waves = np.stack([(x * (3 + number) + y * c) % 251 for c in (5, 7, 11)], -1).astype(np.uint8)
    data = io.BytesIO()
    Image.fromarray(waves).save(data, kind)
    return data.getvalue()


@functools.cache
def video(ending: str, codec: str, frames: int = 12) -> bytes:
    """An encoded video of moving texture, 10 frames a second (25 where a format has no such rate)."""
    rate = 25 if codec == "mpeg1video" else 10
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"v.{ending}")
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=rate)
            stream.width, stream.height = 64, 48
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            for number in range(frames):
                y, x = np.mgrid[:48, :64]
                pixels = np.stack([(x * 3 + y * c + number * 9) % 251 for c in (5, 7, 11)], -1).astype(np.uint8)
                frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
                frame.pts, frame.time_base = number, Fraction(1, rate)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path.read_bytes()
