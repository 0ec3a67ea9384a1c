"""Notes of damage beside a manifest: a file that a reader found damaged is looked at by whoever finds the artifact next.

A note is a hint, never a verdict: the files that it names are read again, and one that is sound is as good as before.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

from components.artifacts.manifest import MARK


def add_mark(fs: Any, attempt: str, rel: str) -> None:
    """Note that a file of the attempt at this path is damaged. Where that cannot be written, nothing happens."""
    folder, _, name = attempt.rpartition("/")
    with contextlib.suppress(Exception):
        files = sorted({*marked(fs, folder, name), rel})
        fs.pipe_file(f"{folder}/{MARK}", json.dumps({"attempt": name, "files": files}, ensure_ascii=False).encode())


def marked(fs: Any, folder: str, attempt: str) -> list[str]:
    """The files of an attempt that were found damaged; none where the note is of another attempt or cannot be read."""
    try:
        found = json.loads(fs.cat_file(f"{folder}/{MARK}"))
    except (FileNotFoundError, ValueError):
        return []
    if not isinstance(found, dict) or found.get("attempt") != attempt or not isinstance(found.get("files"), list):
        return []
    return [rel for rel in found["files"] if isinstance(rel, str)]


def remove_mark(fs: Any, folder: str) -> None:
    """Forget what was noted: everything was made anew."""
    with contextlib.suppress(Exception):
        fs.rm_file(f"{folder}/{MARK}")
