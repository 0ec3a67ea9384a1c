"""How a stored picture is to be turned or mirrored: the display matrix of a video file, taken as the matrix that it is.

The matrix sends column p and row q of the stored picture to a*p + c*q and b*p + d*q of the shown one. Worked example: a phone
held upright stores (a, b, c, d) = (0, 1, -1, 0), a quarter turn clockwise; (-1, 0, 0, 1) is a mirror, which is no angle.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

STRAIGHT = 0.1  # how far from a right angle, as a share of the matrix's larger entries, is still taken for one


@dataclass(frozen=True)
class Orientation:
    """Rows and columns exchanged, then mirrored: `flip_x` left and right, `flip_y` top and bottom."""

    transposed: bool = False
    flip_x: bool = False
    flip_y: bool = False

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """A picture [height, width, ...] as it is to be shown."""
        shown = picture.swapaxes(0, 1) if self.transposed else picture
        return shown[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]


AS_STORED = Orientation()


def orientation_of(frame: Any) -> Orientation:
    """That of a decoded frame of PyAV; as stored where there is no matrix, or one that is no right angle, or flat."""
    data = next((bytes(side) for side in frame.side_data if side.type.name == "DISPLAYMATRIX"), b"")
    return orientation(*struct.unpack("=9i", data)) if len(data) == 36 else AS_STORED


def orientation(a: int, b: int, _u: int, c: int, d: int, *_: int) -> Orientation:
    """That of a matrix [[a, b, u], [c, d, v], [x, y, w]] in fixed point."""
    straight, crossed = (abs(a), abs(d)), (abs(b), abs(c))
    if min(straight) > 0 and max(crossed) <= STRAIGHT * min(straight):
        return Orientation(False, a < 0, d < 0)
    if min(crossed) > 0 and max(straight) <= STRAIGHT * min(crossed):
        return Orientation(True, c < 0, b < 0)
    return AS_STORED
