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
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from components.artifacts.artifact import Artifact, artifact_at
from components.artifacts.files import bring, filesystem
from components.artifacts.sums import GONE, OTHER_CONTENTS, DamagedFile, cure, difference, differs
from components.errors import UserError
from components.media_files.path import OutsideRoot, path_below
from plm_model.media.shown_name import short

PARALLEL_DOWNLOADS = 8
READINGS = 2  # of a file that arrives damaged
NAMES_NO_FILE = (errno.ENAMETOOLONG, errno.ELOOP)


class MissingMedia(ValueError):
    """A record names a file that is not there, or cannot be; the message names it."""


class PathOutsideRoot(UserError):
    """A record names a file outside the data root: not a bad row but a reason to stop."""


@dataclass(frozen=True)
class MediaRoot:
    """The folder or bucket prefix that a data set's media paths are relative to; `uri` is an fsspec URI.

    `digest` is that of the ingest that the media are files of: what is read is what it recorded, or a DamagedFile. Without,
    nothing was recorded.
    """

    uri: str
    digest: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return MediaRoot, (self.uri, self.digest)

    @classmethod
    def of(cls, dataset: Artifact) -> MediaRoot:
        """The root that a converted data set's manifest links."""
        raw = dataset.manifest.get("inputs", {}).get("raw")
        return cls(dataset.links["media"].rstrip("/"), raw["digest"] if raw else None)

    def read(self, path: str) -> bytes:
        """The bytes of one file. MissingMedia when there is none, PathOutsideRoot when the path leads out of the root."""
        target, entry = self.target(path), self.recorded(path)
        for _ in range(READINGS):
            with self._as_recorded(path, entry), naming_the_file(path, target):
                data: bytes = self.location[0].cat_file(target)
            if entry is None or not differs(data, entry):
                return data
        raise self._damaged(path, OTHER_CONTENTS)

    @contextmanager
    def file(self, path: str) -> Iterator[Path]:
        """One file on this machine; from an object store, a copy that is gone after the block. Errors as in `read`."""
        target, entry = self.target(path), self.recorded(path)
        if self.real_root is not None:
            with self._as_recorded(path, entry):
                require_file(path, target)
            self._require_sound(path, Path(target), entry)
            yield Path(target)
            return
        with tempfile.TemporaryDirectory(prefix="media-") as folder:
            suffix = PurePosixPath(path).suffix[:16]  # an object's name may be too long for a disk
            yield self._bring(path, Path(folder, f"copy{suffix}"), entry)

    def local(self, paths: Iterable[str], cache_dir: Path) -> dict[str, Path]:
        """Where each file lies on this machine; what is remote is downloaded once, eight at a time.

        A file that is missing at the root, and was when it was ingested, is missing at the place that is returned, too.
        """
        wanted = list(dict.fromkeys(paths))
        for path in wanted:
            with contextlib.suppress(MissingMedia):
                self.target(path)
        if self.real_root is not None:
            places = {path: Path(self.location[1], path) for path in wanted}
            with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
                list(pool.map(self._require_sound, places, places.values(), map(self.entry, places)))
            return places
        folder = cache_dir / "media" / hashlib.sha256(self.uri.encode()).hexdigest()[:20]
        with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
            return dict(zip(wanted, pool.map(lambda path: self._download(path, folder), wanted), strict=True))

    def target(self, path: str) -> str:
        """The path on its file system. PathOutsideRoot when it leads out of the root, also by a link."""
        require_inside(path)
        target = f"{self.location[1]}/{path}"
        if self.real_root is not None:
            with naming_the_file(path, target):
                real = os.path.realpath(target)
            if not below(real, self.real_root):
                raise PathOutsideRoot(f"{path!r} is a link that leads out of the data root {self.uri}")
            refuse_device(path, real)
        return target

    def entry(self, path: str) -> Mapping[str, Any] | None:
        """What was recorded of a file: its {size, sha256}; None where nothing was, or there was no such file."""
        if self.digest is None:
            return None
        return recorded_media(self.uri, self.digest).files.get(os.path.normpath(path))

    def recorded(self, path: str) -> Mapping[str, Any] | None:
        """The same; MissingMedia for a file that was not there when the others were recorded."""
        entry = self.entry(path)
        if entry is None and self.digest is not None:
            raise MissingMedia(f"{path}: no such file")
        return entry

    def _require_sound(self, path: str, place: Path, entry: Mapping[str, Any] | None) -> None:
        """DamagedFile where the file at `place` is not what was recorded of `path`."""
        if entry is not None and (problem := difference(place, entry)):
            raise self._damaged(path, problem)

    @contextmanager
    def _as_recorded(self, path: str, entry: Mapping[str, Any] | None) -> Iterator[None]:
        """A file that is missing is damage where it was recorded."""
        try:
            yield
        except MissingMedia:
            if entry is None:
                raise
            raise self._damaged(path, GONE) from None

    def _damaged(self, path: str, problem: str) -> DamagedFile:
        return recorded_media(self.uri, str(self.digest)).damaged(os.path.normpath(path), problem)

    def _download(self, path: str, folder: Path) -> Path:
        place = folder / path
        with contextlib.suppress(MissingMedia), naming_the_file(path, str(place)):
            entry = self.entry(path)
            if not place.exists() or (entry is not None and difference(place, entry)):
                self._bring(path, place, entry)
        return place

    def _bring(self, path: str, place: Path, entry: Mapping[str, Any] | None) -> Path:
        def get(partial: Path) -> None:
            with self._as_recorded(path, entry):
                self._fetch(path, partial)

        def problem(partial: Path) -> str | None:
            return None if entry is None else difference(partial, entry)

        if found := bring(get, place, problem):
            raise self._damaged(path, found)
        return place

    def _fetch(self, path: str, place: Path) -> None:
        target = self.target(path)
        with naming_the_file(path, target):
            self.location[0].get_file(target, str(place))

    @cached_property
    def location(self) -> tuple[Any, str]:
        return filesystem(self.uri)

    @cached_property
    def real_root(self) -> str | None:
        """The root with its links resolved; None on an object store, which has none."""
        fs, root = self.location
        return os.path.realpath(root) if isinstance(fs, LocalFileSystem) else None


@lru_cache(maxsize=4)
def recorded_media(uri: str, digest: str) -> Artifact:
    """The ingest whose files lie at `uri`. DamagedFile unless it is there, and the one of that digest."""
    found = artifact_at(uri, Path())
    if found is None or found.digest != digest:
        raise DamagedFile(f"{uri}: is not the ingest that the data set was made from; {cure('ingest')}")
    return found


@contextmanager
def naming_the_file(path: str, target: str) -> Iterator[None]:
    """What the file system says of a file, as an error that names it as the record does."""
    name = short(path)
    if "\0" in path:
        raise MissingMedia(f"{name!r}: no file can have this name")
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise MissingMedia(f"{name}: no such file") from None
    except IsADirectoryError:
        raise MissingMedia(f"{name}: is a folder") from None
    except PermissionError as error:
        raise UserError(f"{target}: may not be read: {error}") from error
    except UnicodeError:
        raise MissingMedia(f"{name!r}: no file can have this name") from None
    except OSError as error:
        if error.errno not in NAMES_NO_FILE:
            raise
        raise MissingMedia(f"{name}: no file can have this name: {error.strerror}") from None


def require_file(path: str, place: str | Path) -> None:
    """MissingMedia, which names `path`, unless there is a file of this disk at `place` and it can be opened."""
    with naming_the_file(path, str(place)):
        os.close(os.open(place, os.O_RDONLY))
        if os.path.isdir(place):
            raise MissingMedia(f"{short(path)}: is a folder")


def refuse_device(path: str, place: str) -> None:
    """MissingMedia for what would be read for ever: a pipe, a socket, a device."""
    try:
        mode = os.stat(place).st_mode
    except (OSError, ValueError):
        return  # opening it says what is wrong
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise MissingMedia(f"{short(path)}: is a pipe or a device, not a file")


def require_inside(path: str) -> None:
    """PathOutsideRoot unless the path, as a record names it, is relative and stays below the root."""
    try:
        path_below(path)
    except OutsideRoot as error:
        raise PathOutsideRoot(str(error)) from None


def below(path: str, root: str) -> bool:
    return os.path.commonpath([path, root]) == root
