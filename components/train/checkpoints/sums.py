"""What a checkpoint was when it was published, against what it is now: sizes at any look, sums before it is resumed.

`files.json` holds size and CRC-32 of every file. A checkpoint that differs is set aside: nobody takes it for whole any more,
the one before it is the newest, and the next save removes it.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from components.artifacts.files import filesystem
from components.train.folder import METRICS

FileRecords = dict[str, dict[str, int]]  # name -> {size, crc32}
METADATA = ".metadata"
UNPUBLISHED = ".metadata.unpublished"
READ_BYTES = 4 << 20
FILES = "files.json"
STATE = "state.json"
ASIDE = ".metadata.damaged"
READINGS = 2  # of a file whose sum differs


def notes_records(folder: str) -> FileRecords:
    """Records of what is beside the tensors of a checkpoint that is about to be published."""
    fs, path = filesystem(folder)
    names = {STATE: STATE, METRICS: METRICS, UNPUBLISHED: METADATA}
    data = {published: fs.cat_file(f"{path}/{name}") for name, published in names.items()}
    return {name: {"size": len(found), "crc32": zlib.crc32(found)} for name, found in data.items()}


def read_records(folder: str) -> FileRecords:
    """The records of a checkpoint; empty where there are none, or none that can be read."""
    fs, path = filesystem(folder)
    try:
        found = json.loads(fs.cat_file(f"{path}/{FILES}"))
        return {str(name): {"size": int(entry["size"]), "crc32": int(entry["crc32"])} for name, entry in found.items()}
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def damage(folder: str, part: int = 0, parts: int = 1, only: Iterable[str] | None = None) -> str | None:
    """How the files of a checkpoint differ from its records, in one line, or None.

    Looked at is every `parts`-th file from number `part` on, so that ranks can share the work; or those named by `only`.
    """
    fs, path = filesystem(folder)
    records = read_records(folder)
    names = [name for name in sorted(records) if only is None or name in only][part::parts]
    with ThreadPoolExecutor(8) as pool:
        problems = list(pool.map(lambda name: different(fs, f"{path}/{name}", records[name]), names))
    return next((f"{name} {problem}" for name, problem in zip(names, problems, strict=True) if problem), None)


def different(fs: Any, path: str, record: dict[str, int]) -> str | None:
    """How a file differs from its record."""
    try:
        size = fs.info(path)["size"]
        if size != record["size"]:
            return f"has {size:,} bytes instead of {record['size']:,}"
        if any(crc32_of(fs, path) == record["crc32"] for _ in range(READINGS)):
            return None
    except FileNotFoundError:
        return "is gone"
    return "holds other bytes than were written"


def crc32_of(fs: Any, path: str) -> int:
    found = 0
    with fs.open(path, "rb") as file:
        while chunk := file.read(READ_BYTES):
            found = zlib.crc32(chunk, found)
    return found


def set_aside(folder: str) -> None:
    """Make a checkpoint one that is not whole; what it holds stays until the next one is saved."""
    fs, path = filesystem(folder)
    with contextlib.suppress(FileNotFoundError):
        fs.mv(f"{path}/{METADATA}", f"{path}/{ASIDE}")


def newest_sound(
    newest: Callable[[], str | None], look: Callable[[str], str | None], say: Callable[[str], None]
) -> str | None:
    """The newest checkpoint in which `look` finds no damage; the damaged ones before it are set aside, and said."""
    while folder := newest():
        problem = look(folder)
        if problem is None:
            return folder
        say(f"checkpoint {folder.rpartition('/')[2]} is damaged ({problem}): resuming from the one before it")
        set_aside(folder)
    return None
