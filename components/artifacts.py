"""An artifact that exists is whole: files go to a fresh prefix, the manifest is committed last, readers require it.

Layout below the storage root, the same on a local disk and on an object store:

    artifacts/<step>/<key>/<attempt>/...     files of one attempt
    artifacts/<step>/<key>/manifest.json     names the attempt whose files are the artifact; appears at once or not at all

The key is the digest of what goes into a step (`StepKey`), the artifact's digest is that of what came out.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from components.errors import UserError

MANIFEST = "manifest.json"
COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class StepKey:
    """What determines a step's result: digests of its inputs, its part of the config, and the code that it runs."""

    step: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """Hex sha256 over all parts."""
        return digest_of({"step": self.step, "inputs": self.inputs, "config": self.config, "code": self.code})


@dataclass(frozen=True)
class Artifact:
    """A whole, verified artifact. `uri` is the prefix of its files, `manifest` what was recorded of it."""

    uri: str
    manifest: Mapping[str, Any]
    cache_dir: Path

    @property
    def step(self) -> str:
        return self.manifest["step"]

    @property
    def key(self) -> str:
        return self.manifest["key"]

    @property
    def digest(self) -> str:
        """32 hex characters of the sha256 over the relative paths and contents of all files."""
        return self.manifest["digest"]

    @property
    def files(self) -> Mapping[str, Mapping[str, Any]]:
        """Relative path -> {size (bytes), sha256 (hex)}."""
        return self.manifest["files"]

    @property
    def counts(self) -> Mapping[str, Any]:
        return self.manifest["counts"]

    @property
    def links(self) -> Mapping[str, str]:
        """URIs that the files refer to: where media lie, for one."""
        return self.manifest["links"]

    def open(self, rel: str, mode: str = "rb") -> IO[Any]:
        """Open one file for reading; text modes are UTF-8."""
        fs, path = filesystem(self.uri)
        return fs.open(f"{path}/{rel}", mode, **({} if "b" in mode else {"encoding": "utf-8"}))

    def read_json(self, rel: str) -> Any:
        with self.open(rel) as file:
            return json.load(file)

    def local(self, rel: str | None = None) -> Path:
        """The file `rel`, or the folder of all files, on this machine; a remote one is downloaded once to the cache."""
        fs, path = filesystem(self.uri)
        if isinstance(fs, LocalFileSystem):
            return Path(path) if rel is None else Path(path) / rel
        folder = self.cache_dir / "artifacts" / self.digest[:20]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: self._download(fs, path, name, folder), [rel] if rel else list(self.files)))
        return folder if rel is None else folder / rel

    def _download(self, fs: Any, path: str, rel: str, folder: Path) -> None:
        target = folder / rel
        if target.exists() and target.stat().st_size == self.files[rel]["size"]:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{uuid.uuid4().hex}")  # without the name, which may be as long as a name can be
        fs.get_file(f"{path}/{rel}", str(partial))
        partial.replace(target)


class ArtifactWriter:
    """Collects the files of one attempt; `ArtifactStore.create` commits them."""

    def __init__(self, uri: str, fs: Any, path: str) -> None:
        self.uri = uri
        self.fs = fs
        self.path = path
        self.counts: dict[str, Any] = {}
        self.links: dict[str, str] = {}  # URIs that the files refer to; not part of the content, so not of the digest
        self.after_commit: list[Callable[[], None]] = []  # what only a step that need not run again can do without
        self._hashed: dict[str, dict[str, Any]] = {}

    @contextlib.contextmanager
    def open(self, rel: str, mode: str = "wb") -> Iterator[Any]:
        """Open a file of this artifact for writing ("wb" or "w"); its hash is taken on the way."""
        target = f"{self.path}/{_safe(rel)}"
        self._make_parent(target)
        with self.fs.open(target, "wb") as raw:
            sink = _HashingSink(raw, text="b" not in mode)
            yield sink
        self._hashed[rel] = {"size": sink.size, "sha256": sink.sha.hexdigest()}

    def write_json(self, rel: str, value: Any) -> None:
        with self.open(rel, "w") as file:
            file.write(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")

    def add_file(self, local: str | os.PathLike[str], rel: str) -> None:
        """Copy a local file in."""
        with open(local, "rb") as source, self.open(rel) as target:
            while chunk := source.read(COPY_BYTES):
                target.write(chunk)

    def add_tree(self, local_dir: str | os.PathLike[str], rel: str = "") -> None:
        """Copy every file below a local folder in, keeping relative paths."""
        for path in sorted(Path(local_dir).rglob("*")):
            if path.is_file():
                inner = path.relative_to(local_dir).as_posix()
                self.add_file(path, f"{rel}/{inner}" if rel else inner)

    def adopt(self, rel: str, entry: Mapping[str, Any]) -> None:
        """Trust the {size, sha256} of a file that was linked or copied here from another artifact."""
        self._hashed[_safe(rel)] = {"size": entry["size"], "sha256": entry["sha256"]}

    def recorded_files(self) -> dict[str, dict[str, Any]]:
        """Relative path -> {size, sha256} of everything below the prefix; what others wrote is hashed now."""
        found = self.fs.find(self.path, detail=True)
        sizes = {name[len(self.path) :].lstrip("/"): info["size"] for name, info in found.items()}
        unknown = [rel for rel, size in sizes.items() if self._hashed.get(rel, {}).get("size") != size]
        with ThreadPoolExecutor(8) as pool:
            for rel, sha in zip(unknown, pool.map(self._sha256, unknown), strict=True):
                self._hashed[rel] = {"size": sizes[rel], "sha256": sha}
        return {rel: self._hashed[rel] for rel in sorted(sizes)}

    def _sha256(self, rel: str) -> str:
        sha = hashlib.sha256()
        with self.fs.open(f"{self.path}/{rel}", "rb") as file:
            while chunk := file.read(COPY_BYTES):
                sha.update(chunk)
        return sha.hexdigest()

    def _make_parent(self, target: str) -> None:
        if isinstance(self.fs, LocalFileSystem):
            os.makedirs(os.path.dirname(target), exist_ok=True)


def filesystem(uri: str, probe: bool = False) -> tuple[Any, str]:
    """The fsspec filesystem of a URI and the path in it. Listings are never cached: other processes write too.

    S3 is spoken to through `components.storage_client`, which tries again and verifies; with `probe` it gives up early.
    """
    if uri.startswith(("s3://", "s3a://")):
        from components import storage_client

        limits = storage_client.PROBE if probe else storage_client.LIMITS
        client = storage_client.StorageClient(limits=limits)
        return client, client._strip_protocol(uri).rstrip("/")
    fs, path = fsspec.core.url_to_fs(uri)
    return fs, path.rstrip("/")


def absolute_uri(uri: str) -> str:
    """A URI without trailing slash; paths, also as `file://`, become absolute ones (workers run in other folders)."""
    path = uri.removeprefix("file://").removeprefix("local://")
    return uri.rstrip("/") if "://" in path else str(Path(path).absolute())


def digest_of(value: Any) -> str:
    """Hex sha256 of a JSON-able value, keys sorted."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str).encode()).hexdigest()


def content_digest(files: Mapping[str, Any] | None) -> str:
    """Digest of an artifact's files; 32 of sha256's 64 hex characters, because MLflow keeps at most 36 of a data set's."""
    return digest_of(files)[:32]


class _HashingSink:
    def __init__(self, raw: Any, text: bool) -> None:
        self.raw, self.text = raw, text
        self.sha, self.size = hashlib.sha256(), 0

    def write(self, data: Any) -> int:
        raw = data.encode("utf-8") if self.text else data
        self.raw.write(raw)
        self.sha.update(raw)
        self.size += memoryview(raw).nbytes
        return len(data)


def _safe(rel: str) -> str:
    if rel.startswith("/") or ".." in rel.split("/"):
        raise UserError(f"{rel}: a file of an artifact must stay below its prefix")
    return rel
