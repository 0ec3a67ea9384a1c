"""The folders of attempts at one key: how they are named, which of them are dead, and how a damaged one is mended in place.

What comes out the same again stays at the same path: only the files that differ are put in place, so that links to it, and
versions in a registry, lead where they led before.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from components.artifacts.manifest import MANIFEST, MARK, BrokenManifest, read_manifest
from components.artifacts.sums import difference, is_local

log = logging.getLogger(__name__)


def new_name() -> str:
    """A name that tells which process of which machine writes there."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def names_in(fs: Any, folder: str) -> list[str]:
    """What lies in the folder of a key, but for its manifest and notes."""
    try:
        entries = fs.ls(folder, detail=False)
    except FileNotFoundError:
        return []
    names = [entry.rstrip("/").rpartition("/")[2] for entry in entries]
    return [name for name in names if name not in (MANIFEST, MARK)]


def standing_attempt(fs: Any, folder: str, made: Mapping[str, Any]) -> str | None:
    """The attempt that a new manifest's content came out the same as: the committed one, or the one that was.

    Where the manifest is gone or cannot be read, it is one that has every file in its size and that nobody else writes to.
    """
    try:
        known = read_manifest(fs.cat_file(f"{folder}/{MANIFEST}"))
    except (FileNotFoundError, IsADirectoryError, BrokenManifest):
        others = (name for name in names_in(fs, folder) if name != made["attempt"] and is_over(name))
        return next((name for name in sorted(others) if has_sizes(fs, f"{folder}/{name}", made["files"])), None)
    return known["attempt"] if known["digest"] == made["digest"] else None


def has_sizes(fs: Any, path: str, files: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a folder holds these files in their sizes; those set aside may have others."""
    found = sizes_below(fs, path)
    return all(found.get(rel) == entry["size"] for rel, entry in files.items() if not entry.get("aside"))


def sizes_below(fs: Any, path: str) -> dict[str, int]:
    """Relative path -> size in bytes of everything below a folder."""
    return {name[len(path) :].lstrip("/"): info["size"] for name, info in fs.find(path, detail=True).items()}


def size_of(fs: Any, path: str) -> int | None:
    """The size of one file, None where there is none: asked for itself, since a listing may be older than the file."""
    try:
        return None if is_local(fs) else fs.info(path)["size"]
    except FileNotFoundError:
        return None


def mend(fs: Any, old: str, new: str, files: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Put the files of the folder `new` in place of those of `old` that differ from them; which ones those were."""

    def replace(rel: str) -> bool:
        if difference(f"{old}/{rel}", files[rel], fs) is None:
            return False
        if is_local(fs):
            os.makedirs(os.path.dirname(f"{old}/{rel}"), exist_ok=True)
            os.replace(f"{new}/{rel}", f"{old}/{rel}")  # at once, and other links to the old file keep it
        else:
            fs.cp_file(f"{new}/{rel}", f"{old}/{rel}")
        return True

    with ThreadPoolExecutor(8) as pool:
        return [rel for rel, replaced in zip(files, pool.map(replace, files), strict=True) if replaced]


def remove_dead(fs: Any, folder: str) -> None:
    """Remove the attempts of this machine whose processes are dead, but for the committed one. Never raises.

    Only called when there is a new manifest; where that cannot be read, nothing is removed.
    """
    try:
        committed = read_manifest(fs.cat_file(f"{folder}/{MANIFEST}"))["attempt"]
        for name in names_in(fs, folder):
            if name != committed and is_dead(name):
                fs.rm(f"{folder}/{name}", recursive=True)
    except Exception as error:  # of a store that is away, a manifest that is damaged already: the artifact is made
        log.warning("%s: old attempts stay: %s", folder, " ".join(str(error).split())[:200])


def is_dead(name: str) -> bool:
    """Whether an attempt was written by a process of this machine that is no more."""
    host, _, pid = name.removeprefix(".").rpartition("-")[0].rpartition("-")
    return host == socket.gethostname() and pid.isdigit() and not _alive(int(pid))


def is_over(name: str) -> bool:
    """Whether nobody writes to an attempt any more, as far as this machine knows: its process is dead, or this one."""
    return not name.startswith(".") and (is_dead(name) or name.startswith(f"{socket.gethostname()}-{os.getpid()}-"))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def remove(fs: Any, path: str) -> None:
    """Remove what is left of an attempt, if it can be."""
    with contextlib.suppress(Exception):
        fs.rm(path, recursive=True)
