"""Media files are read below one root and nowhere else, on a local disk or an object store."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from components.artifacts import filesystem
from components.errors import UserError


class MissingMedia(ValueError):
    """A record names a file that is not there; the message names it."""


class PathOutsideRoot(UserError):
    """A record names a file outside the data root: not a bad row but a reason to stop."""


@dataclass(frozen=True)
class MediaRoot:
    """The folder that a data set's media paths are relative to; `uri` is an fsspec URI."""

    uri: str

    def read(self, path: str) -> bytes:
        """The bytes of one file. MissingMedia when there is none, PathOutsideRoot when the path leads out of the root."""
        require_inside(path)
        fs, root = self.location
        target = f"{root}/{path}"
        if self.real_root is not None and not below(os.path.realpath(target), self.real_root):
            raise PathOutsideRoot(f"{path!r} is a link that leads out of the data root {self.uri}")
        try:
            return fs.cat_file(target)
        except (FileNotFoundError, NotADirectoryError):
            raise MissingMedia(f"{path}: no such file") from None
        except IsADirectoryError:
            raise MissingMedia(f"{path}: is a folder") from None
        except PermissionError as error:
            raise UserError(f"{target}: may not be read: {error}") from error

    @cached_property
    def location(self) -> tuple[Any, str]:
        return filesystem(self.uri)

    @cached_property
    def real_root(self) -> str | None:
        """The root with its links resolved; None on an object store, which has none."""
        fs, root = self.location
        return os.path.realpath(root) if isinstance(fs, LocalFileSystem) else None


def require_inside(path: str) -> None:
    """PathOutsideRoot unless the path, as written, is relative and stays below the root."""
    parts = PurePosixPath(path.replace("\\", "/")).parts
    drive = bool(parts) and parts[0].endswith(":")
    if not parts or path.startswith(("/", "\\", "~")) or ".." in parts or drive or "://" in path:
        raise PathOutsideRoot(f"{path!r} leaves the data root; write paths relative to it, without `..`")


def below(path: str, root: str) -> bool:
    return os.path.commonpath([path, root]) == root
