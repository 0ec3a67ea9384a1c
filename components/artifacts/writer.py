"""The files of one attempt on the way into the store, their sums taken while they are written."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from components.errors import UserError

COPY_BYTES = 1 << 20


class ArtifactWriter:
    """Collects the files of one attempt; `ArtifactStore.create` commits them."""

    def __init__(self, uri: str, fs: Any, path: str) -> None:
        self.uri = uri
        self.fs = fs
        self.path = path
        self.schema = ""  # which format the files are in, and so what a reader may rely on
        self.counts: dict[str, Any] = {}
        self.links: dict[str, str] = {}  # URIs that the files refer to; not part of the content, so not of the digest
        self.aside: set[str] = set()  # files that tell of times or places, which another run of the same has others of
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
        aside = self.aside
        return {rel: {**self._hashed[rel], **({"aside": True} if rel in aside else {})} for rel in sorted(sizes)}

    def _sha256(self, rel: str) -> str:
        sha = hashlib.sha256()
        with self.fs.open(f"{self.path}/{rel}", "rb") as file:
            while chunk := file.read(COPY_BYTES):
                sha.update(chunk)
        return sha.hexdigest()

    def _make_parent(self, target: str) -> None:
        if isinstance(self.fs, LocalFileSystem):
            os.makedirs(os.path.dirname(target), exist_ok=True)


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
