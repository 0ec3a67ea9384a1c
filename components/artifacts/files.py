"""Files at URIs, local or remote, one way each: the file system, write at once, read JSON, bring here, remove."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

DOWNLOADS = 2  # of a file that arrives damaged


def filesystem(uri: str, probe: bool = False) -> tuple[Any, str]:
    """The fsspec filesystem of a URI and the path in it. Listings are never cached: other processes write too.

    S3 is spoken to through `components.storage.client`, which tries again and verifies; with `probe` it gives up early.
    """
    if uri.startswith(("s3://", "s3a://")):
        from components.storage import client as storage_client

        limits = storage_client.PROBE if probe else storage_client.LIMITS
        client = storage_client.StorageClient(limits=limits)
        return client, client._strip_protocol(uri).rstrip("/")
    fs, path = fsspec.core.url_to_fs(uri)
    return fs, path.rstrip("/")


def absolute_uri(uri: str) -> str:
    """A URI without trailing slash; paths, also as `file://`, become absolute ones (workers run in other folders)."""
    path = uri.removeprefix("file://").removeprefix("local://")
    return uri.rstrip("/") if "://" in path else str(Path(path).absolute())


def write_bytes(uri: str, data: bytes) -> str:
    """Write a file, with the folders above it: whole or not at all; gives its URI."""
    fs, path = filesystem(uri)
    if not isinstance(fs, LocalFileSystem):
        fs.pipe_file(path, data)  # an object appears at once
        return uri
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{uuid.uuid4().hex}")
    try:
        partial.write_bytes(data)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return uri


def write_json(uri: str, value: Any, indent: int | None = None) -> str:
    """Write a value as a JSON file, with the folders above it; gives its URI."""
    return write_bytes(uri, (json.dumps(value, indent=indent) + "\n").encode())


def read_json(uri: str) -> dict[str, Any] | None:
    """The JSON object of a file; None where there is no such file, or no such object in it. OSError of a store that is away."""
    fs, path = filesystem(uri)
    try:
        found = json.loads(fs.cat_file(path))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def remove(uri: str) -> None:
    """Remove a file or a folder; nothing happens where there is none."""
    fs, path = filesystem(uri)
    with contextlib.suppress(FileNotFoundError):
        fs.rm(path, recursive=True)


def bring(get: Callable[[Path], None], target: Path, problem: Callable[[Path], str | None]) -> str | None:
    """Get a file under a name of its own, and once it is sound under `target`; what is wrong with it where it stays unsound."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{uuid.uuid4().hex}")  # without the name, which may be as long as a name can be
    try:
        if (found := get_sound(get, partial, problem)) is None:
            partial.replace(target)
        return found
    finally:
        partial.unlink(missing_ok=True)


def get_sound(get: Callable[[Path], None], place: Path, problem: Callable[[Path], str | None]) -> str | None:
    """Get a file, again where it arrives damaged; None when it is sound, else what is wrong with the last one."""
    found = None
    for _ in range(DOWNLOADS):
        get(place)
        if (found := problem(place)) is None:
            return None
    return found
