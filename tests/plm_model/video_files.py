"""Videos made for the tests: every frame carries its number as a row of black and white blocks at its top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS = 10
BLOCK = 8  # pixels
CLOCK = 90_000


def picture(number: int, width: int = 96, height: int = 64) -> np.ndarray:
    """A frame, uint8 [height, width, 3]: moving colours with texture, and its number in binary."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin((x * a + y * b + number * 3) / 9) for a, b in ((1, 0.3), (0.2, 1), (0.7, -0.6))]
    frame = (127 + 100 * np.stack(waves, -1) + (x * 7 + y * 13)[..., None] % 23).clip(0, 255).astype(np.uint8)
    for bit in range(BITS):
        frame[:BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 255 * (number >> bit & 1)
    return frame


def number_of(frame: np.ndarray) -> int:
    """The number that a decoded frame [H, W, 3] carries."""
    centre = BLOCK // 2
    return sum(1 << bit for bit in range(BITS) if frame[centre, bit * BLOCK + centre].mean() > 127)


def write_video(
    path: Path,
    frames: int = 30,
    fps: int = 30,
    codec: str = "libx264",
    times: Sequence[float] | None = None,
    options: Mapping[str, object] | None = None,
    size: tuple[int, int] = (96, 64),
    colorspace: int | None = None,
) -> Path:
    """Write numbered frames at a constant rate, or at `times` in seconds."""
    options = {name: str(value) for name, value in (options or {}).items()}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        clock = Fraction(1, fps if codec.startswith("mpeg") else CLOCK)  # MPEG has no other
        stream.codec_context.time_base = clock
        if "bf" in options:
            stream.codec_context.max_b_frames = int(options["bf"])
        if colorspace is not None:
            stream.codec_context.colorspace = colorspace
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), "rgb24")
            frame.pts = round((times[number] if times else number / fps) / clock)
            frame.time_base = clock
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
