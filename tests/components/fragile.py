"""An encoder that does what native code does with some files; in a module of its own, which a process imports in no time."""

from __future__ import annotations

import ctypes
import re
import time
from typing import Any

from components.errors import UserError
from components.preprocess.encode import Encoder


class Fragile(Encoder):
    """Does what native code does with some files, at the mention of them."""

    def encode(self, raw: bytes, source: str) -> dict[str, Any]:
        if b"crash.png" in raw:
            ctypes.string_at(0)
        if b"loop.png" in raw:
            re.fullmatch("(a*)*b", "a" * 64)  # native code that holds the interpreter for years
        if b"wait.png" in raw:
            time.sleep(600)
        if b"fault.png" in raw:
            raise TypeError("cannot handle this")
        if b"secret.png" in raw:
            raise UserError("secret.png: may not be read")
        return super().encode(raw, source)
