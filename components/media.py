"""The media that a data set refers to but does not copy: read below one root and nowhere else, on a disk or an object store.

A converted data set's manifest links the root; its records name paths below it. Links that lead out of it are refused.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from components.artifacts import Artifact, filesystem
from components.errors import UserError
from components.media_path import OutsideRoot, path_below

PARALLEL_DOWNLOADS = 8
NAMES_NO_FILE = (errno.ENAMETOOLONG, errno.ELOOP)


class MissingMedia(ValueError):
    """A record names a file that is not there, or cannot be; the message names it."""


class PathOutsideRoot(UserError):
    """A record names a file outside the data root: not a bad row but a reason to stop."""


@dataclass(frozen=True)
class MediaRoot:
    """The folder or bucket prefix that a data set's media paths are relative to; `uri` is an fsspec URI."""

    uri: str

    @classmethod
    def of(cls, dataset: Artifact) -> MediaRoot:
        """The root that a converted data set's manifest links."""
        return cls(dataset.links["media"].rstrip("/"))

    def read(self, path: str) -> bytes:
        """The bytes of one file. MissingMedia when there is none, PathOutsideRoot when the path leads out of the root."""
        target = self.target(path)
        with said_of(path, target):
            return self.location[0].cat_file(target)

    @contextmanager
    def file(self, path: str) -> Iterator[Path]:
        """One file on this machine; from an object store, a copy that is gone after the block. Errors as in `read`."""
        target = self.target(path)
        if self.real_root is not None:
            require_file(path, target)
            yield Path(target)
            return
        with tempfile.TemporaryDirectory(prefix="media-") as folder:
            copy = (
                Path(folder) / f"copy{PurePosixPath(path).suffix[:16]}"
            )  # an object's name may be too long for a disk
            self._fetch(path, copy)
            yield copy

    def local(self, paths: Iterable[str], cache_dir: Path) -> dict[str, Path]:
        """Where each file lies on this machine; what is remote is downloaded once, eight at a time.

        A file that is missing at the root is missing at the place that is returned, too.
        """
        wanted = list(dict.fromkeys(paths))
        for path in wanted:
            with contextlib.suppress(MissingMedia):
                self.target(path)
        if self.real_root is not None:
            return {path: Path(self.location[1], path) for path in wanted}
        folder = cache_dir / "media" / hashlib.sha256(self.uri.encode()).hexdigest()[:20]
        with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
            return dict(zip(wanted, pool.map(lambda path: self._download(path, folder), wanted), strict=True))

    def target(self, path: str) -> str:
        """The path on its file system. PathOutsideRoot when it leads out of the root, also by a link."""
        require_inside(path)
        target = f"{self.location[1]}/{path}"
        if self.real_root is not None:
            with said_of(path, target):
                real = os.path.realpath(target)
            if not below(real, self.real_root):
                raise PathOutsideRoot(f"{path!r} is a link that leads out of the data root {self.uri}")
            refuse_device(path, real)
        return target

    def _download(self, path: str, folder: Path) -> Path:
        place = folder / path
        with contextlib.suppress(MissingMedia), said_of(path, str(place)):
            if not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                partial = place.with_name(f".{uuid.uuid4().hex}")
                self._fetch(path, partial)
                os.replace(partial, place)
        return place

    def _fetch(self, path: str, place: Path) -> None:
        target = self.target(path)
        with said_of(path, target):
            self.location[0].get_file(target, str(place))

    @cached_property
    def location(self) -> tuple[Any, str]:
        return filesystem(self.uri)

    @cached_property
    def real_root(self) -> str | None:
        """The root with its links resolved; None on an object store, which has none."""
        fs, root = self.location
        return os.path.realpath(root) if isinstance(fs, LocalFileSystem) else None


@contextmanager
def said_of(path: str, target: str) -> Iterator[None]:
    """What the file system says of a file, as an error that names it as the record does."""
    if "\0" in path:
        raise MissingMedia(f"{path!r}: no file can have this name")
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise MissingMedia(f"{path}: no such file") from None
    except IsADirectoryError:
        raise MissingMedia(f"{path}: is a folder") from None
    except PermissionError as error:
        raise UserError(f"{target}: may not be read: {error}") from error
    except UnicodeError:
        raise MissingMedia(f"{path!r}: no file can have this name") from None
    except OSError as error:
        if error.errno not in NAMES_NO_FILE:
            raise
        raise MissingMedia(f"{path}: no file can have this name: {error.strerror}") from None


def require_file(path: str, place: str | Path) -> None:
    """MissingMedia, which names `path`, unless there is a file of this disk at `place` and it can be opened."""
    with said_of(path, str(place)):
        os.close(os.open(place, os.O_RDONLY))
        if os.path.isdir(place):
            raise MissingMedia(f"{path}: is a folder")


def refuse_device(path: str, place: str) -> None:
    """MissingMedia for what would be read for ever: a pipe, a socket, a device."""
    try:
        mode = os.stat(place).st_mode
    except (OSError, ValueError):
        return  # opening it says what is wrong
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise MissingMedia(f"{path}: is a pipe or a device, not a file")


def require_inside(path: str) -> None:
    """PathOutsideRoot unless the path, as a record names it, is relative and stays below the root."""
    try:
        path_below(path)
    except OutsideRoot as error:
        raise PathOutsideRoot(str(error)) from None


def below(path: str, root: str) -> bool:
    return os.path.commonpath([path, root]) == root
