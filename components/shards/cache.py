"""Shards opened for reading: those of a local data set where they lie, remote ones from a cache that stays under its limit.

All ranks and loader processes of a machine share the cache. A shard is fetched once, by whoever comes first, to a temporary
name and then renamed; room is made before, by removing those used least recently. A file that is removed while someone reads
it stays readable to him. Downloads under way count with their full size. Every process compares a shard with its recorded
sum before it reads from it for the first time; a damaged copy is fetched again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from filelock import FileLock

from components.artifacts.artifact import Artifact
from components.artifacts.files import filesystem, get_sound
from components.errors import UserError

WAIT_SECONDS = 0.2
log = logging.getLogger(__name__)
SLOTS = 64  # files that are locked while a shard is fetched; shards that share one wait for each other


@dataclass(frozen=True)
class ShardFiles:
    """The files of a data set. `limit` is in bytes and holds for `folder`, whatever data sets lie in it."""

    artifact: Artifact
    folder: Path
    limit: int

    def open(self, rel: str) -> IO[bytes]:
        """A file by its relative path. UserError when it is larger than the whole cache, DamagedFile when it is not as it was
        recorded, OSError when it cannot be had.

        The error has an errno in any case: without one, it would be taken for one of the file's contents.
        """
        try:
            return self._open(rel)
        except OSError as error:
            if error.errno is not None:
                raise
            raise OSError(errno.EIO, str(error) or type(error).__name__) from error

    def _open(self, rel: str) -> IO[bytes]:
        if "://" not in self.artifact.uri:
            place = Path(self.artifact.uri, rel)
            self.artifact.require_sound(rel, place)
            return open(place, "rb")
        fs, path = filesystem(self.artifact.uri)
        name = f"{self.artifact.digest[:20]}-{rel.replace('/', '-')}"
        with contextlib.suppress(FileNotFoundError):
            return self._open_cached(rel, name)
        locks = self.folder / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        slot = int(hashlib.sha256(name.encode()).hexdigest(), 16) % SLOTS
        with FileLock(locks / str(slot)):
            with contextlib.suppress(FileNotFoundError):
                return self._open_cached(rel, name)
            return self._fetch(fs, f"{path}/{rel}", rel, name)

    @property
    def _room(self) -> Path:
        return self.folder / "locks" / "room"

    def _open_cached(self, rel: str, name: str) -> IO[bytes]:
        """FileNotFoundError when it is not there, or is not what was recorded."""
        path = self.folder / name
        if problem := self.artifact.problem(rel, path):
            if path.exists():
                log.warning("%s %s: it is fetched again", path, problem)
            raise FileNotFoundError(path)
        os.utime(path)
        return open(path, "rb")

    def _fetch(self, fs: Any, remote: str, rel: str, name: str) -> IO[bytes]:
        """Download to a temporary name that tells its size, verify, rename, open before anyone can remove it."""
        size = self.artifact.files[rel]["size"]

        def get(place: Path) -> None:
            fs.get_file(remote, str(place))
            if place.stat().st_size != size:
                raise OSError(f"{remote}: {place.stat().st_size} bytes came, {size} were expected")

        partial, held = self._reserve(name, size)
        try:
            if problem := get_sound(get, partial, lambda place: self.artifact.problem(rel, place)):
                raise self.artifact.damaged(rel, problem)
            opened = open(partial, "rb")  # noqa: SIM115  the caller closes it
            with FileLock(self._room):  # whoever counts the bytes must not miss this file between its two names
                partial.replace(self.folder / name)
            return opened
        finally:
            partial.unlink(missing_ok=True)
            held.close()

    def _reserve(self, name: str, size: int) -> tuple[Path, IO[bytes]]:
        """An empty file in whose name the size is taken, locked until the handle is closed, or its process is no more.

        Waits while downloads under way leave no room for it.
        """
        if size > self.limit:
            raise UserError(f"a shard of {size:,} bytes is more than train.shard_cache_gb allows; raise it")
        partial = self.folder / f"{name}.part-{size}-{uuid.uuid4().hex[:8]}"
        while True:
            with FileLock(self._room):
                if self._make_room(size):
                    held = open(partial, "ab")  # noqa: SIM115  the caller closes it
                    fcntl.flock(held, fcntl.LOCK_EX)
                    return partial, held
            time.sleep(WAIT_SECONDS)

    def _make_room(self, size: int) -> bool:
        """Remove the shards used least recently until so many bytes are free; False when downloads hold too many."""
        shards: list[tuple[float, int, Path]] = []
        used = 0
        for path in self.folder.iterdir():
            if not path.is_file():
                continue
            with contextlib.suppress(FileNotFoundError):
                stat, (_, part, promised) = path.stat(), path.name.partition(".part-")
                if part and nobodys(path):
                    path.unlink()
                    continue
                taken = int(promised.split("-")[0]) if part else stat.st_size
                used += taken
                if not part:
                    shards.append((stat.st_mtime, taken, path))
        for _, taken, path in sorted(shards):
            if used + size <= self.limit:
                break
            path.unlink(missing_ok=True)
            used -= taken
        return used + size <= self.limit


def nobodys(partial: Path) -> bool:
    """Whether the process that began a download is no more: its lock is free."""
    with open(partial, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
