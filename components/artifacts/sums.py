"""Sums of files, and how a file differs from what was recorded of it."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Mapping
from typing import IO, Any

from fsspec.implementations.local import LocalFileSystem

from components.errors import UserError

READ_BYTES = 1 << 18  # stays in a core's cache
OTHER_CONTENTS = "holds other bytes than were recorded"
GONE = "is gone"


class DamagedFile(UserError):
    """A file is not what was recorded of it when it was made; the message names it and what makes it anew."""


def cure(step: str) -> str:
    """What makes a damaged artifact of a step anew, as the end of a sentence."""
    return f"run `plm {step.replace('_', '-')}` with this config, or the whole chain again: it is made anew"


def sum_of(file: IO[bytes]) -> str:
    """Hex sha256 of what an open file still holds."""
    sha, buffer = hashlib.sha256(), bytearray(READ_BYTES)
    view = memoryview(buffer)
    while count := file.readinto(buffer):  # type: ignore[attr-defined]  # a file of bytes has it
        sha.update(view[:count])
    return sha.hexdigest()


def difference(path: str | os.PathLike[str], entry: Mapping[str, Any], fs: Any = None) -> str | None:
    """How a file differs from its recorded {size, sha256}, as the end of a sentence about it; None where it does not.

    `fs` is its fsspec file system, the local one where it is left out. What has no recorded sum is compared by size. A sum
    that differs is taken once more, so that a byte that fell over on its way here is not taken for one that is wrong there.
    """
    local = fs is None or is_local(fs)
    try:
        size = os.stat(path).st_size if local else fs.info(str(path))["size"]
        if size != entry["size"]:
            return f"has {size:,} bytes instead of {entry['size']:,}"
        wanted = entry.get("sha256")
        if wanted is None or any(_sum(path, fs, local) == wanted for _ in range(2)):
            return None
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return GONE
    except OSError as error:
        if not local or error.errno != errno.EIO:  # a store that is away says EIO, too
            raise
        return f"cannot be read: {error.strerror or error}"
    return OTHER_CONTENTS


def _sum(path: str | os.PathLike[str], fs: Any, local: bool) -> str:
    with open(path, "rb") if local else fs.open(str(path), "rb") as file:
        return sum_of(file)


def differs(data: bytes, entry: Mapping[str, Any]) -> bool:
    """Whether bytes in memory are not those that were recorded."""
    return bool(len(data) != entry["size"] or hashlib.sha256(data).hexdigest() != entry["sha256"])


def is_local(fs: Any) -> bool:
    return isinstance(fs, LocalFileSystem)
