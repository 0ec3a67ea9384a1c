"""Artifacts below a storage root: found whole or not at all, made in a fresh prefix, committed by their manifest.

Two runs may make the same key at once: the first commit stands, and the other's files are not used.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from components.artifacts import MANIFEST, Artifact, ArtifactWriter, StepKey, absolute_uri, content_digest, filesystem
from components.errors import UserError


class ArtifactStore:
    """All artifacts below one storage root."""

    def __init__(self, root: str, cache_dir: str | os.PathLike[str]) -> None:
        self.root = absolute_uri(root)
        self.cache_dir = Path(cache_dir).absolute()
        self.fs, self._path = filesystem(self.root)
        if "://" in self.root and set("*?[") & set(self.root):  # removing or moving below it would expand the pattern
            raise UserError(f"storage.root {self.root}: must not hold any of * ? [")

    def uri(self, *parts: str) -> str:
        """A URI below the root."""
        return "/".join((self.root, *parts))

    def check(self) -> None:
        """Write, read and delete a small object. Raises UserError when the root cannot be used."""
        probe = f"{self._path}/.probe-{uuid.uuid4().hex}"
        try:
            if isinstance(self.fs, LocalFileSystem):
                os.makedirs(self._path, exist_ok=True)
            fs, _ = filesystem(self.root, probe=True)
            fs.pipe_file(probe, b"probe")
            fs.rm_file(probe)
        except Exception as error:  # botocore, aiohttp and OSError families: each means the same to the user
            raise UserError(f"storage.root {self.root}: cannot be written: {_short(error)}") from None

    def find(self, key: StepKey) -> Artifact | None:
        """The artifact of a key if its manifest is there and every file has the size that the manifest says."""
        return self.find_digest(key.step, key.digest)

    def find_digest(self, step: str, digest: str) -> Artifact | None:
        """The same for a key of which only the digest is known."""
        folder = f"{self._path}/artifacts/{step}/{digest[:20]}"
        try:
            manifest = json.loads(self.fs.cat_file(f"{folder}/{MANIFEST}"))
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        if manifest.get("key") != digest or manifest.get("digest") != content_digest(manifest.get("files")):
            return None
        data = f"{folder}/{manifest['attempt']}"
        sizes = {name[len(data) :].lstrip("/"): info["size"] for name, info in self.fs.find(data, detail=True).items()}
        if any(sizes.get(rel) != entry["size"] for rel, entry in manifest["files"].items()):
            return None
        if any(not self._linked(link) for link in manifest["links"].values()):
            return None
        uri = self.uri("artifacts", step, digest[:20], manifest["attempt"])
        return Artifact(uri, manifest, self.cache_dir)

    def _linked(self, uri: str) -> bool:
        """Whether what a link of an artifact leads to is still the committed attempt of its key."""
        folder, _, attempt = uri.rpartition("/")
        if not folder.startswith(f"{self.root}/artifacts/"):
            return True
        try:
            manifest = json.loads(self.fs.cat_file(f"{self._path}{folder[len(self.root) :]}/{MANIFEST}"))
        except (FileNotFoundError, json.JSONDecodeError):
            return False
        return manifest.get("attempt") == attempt

    @contextlib.contextmanager
    def create(self, key: StepKey, inputs: Mapping[str, Artifact] | None = None) -> Iterator[ArtifactWriter]:
        """Yield a writer; commit when the block ends well, remove what was written when it raises.

        Where the key already has a manifest (a refresh, or a damaged artifact), the new one replaces it. What the writer
        holds in `after_commit` is called last.
        """
        folder = f"{self._path}/artifacts/{key.step}/{key.digest[:20]}"
        standing = self.find(key)
        replace = self.fs.exists(f"{folder}/{MANIFEST}")
        self._remove_dead_attempts(folder)
        attempt = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        path = f"{folder}/{attempt}"
        if isinstance(self.fs, LocalFileSystem):
            os.makedirs(path)
        out = ArtifactWriter(self.uri("artifacts", key.step, key.digest[:20], attempt), self.fs, path)
        started = time.time()
        try:
            yield out
            manifest = self._manifest(key, inputs or {}, out, attempt, started)
            if standing and standing.digest == manifest["digest"]:
                self.fs.rm(path, recursive=True)  # a refresh came out the same: links to the standing files stay good
            else:
                self._commit(folder, attempt, replace, manifest)
        except BaseException:
            with contextlib.suppress(Exception):
                self.fs.rm(path, recursive=True)
            raise
        for call in out.after_commit:
            call()

    def _manifest(
        self, key: StepKey, inputs: Mapping[str, Artifact], out: ArtifactWriter, attempt: str, started: float
    ) -> dict[str, Any]:
        files = out.recorded_files()
        return {
            "format": 1,
            "step": key.step,
            "key": key.digest,
            "digest": content_digest(files),
            "attempt": attempt,
            "inputs": {name: {"uri": a.uri, "digest": a.digest, "step": a.step} for name, a in inputs.items()},
            "input_digests": dict(key.inputs),
            "config": key.config,
            "code": key.code,
            "counts": out.counts,
            "links": out.links,
            "bytes": sum(entry["size"] for entry in files.values()),
            "started": started,
            "seconds": round(time.time() - started, 3),
            "files": files,
        }

    def _commit(self, folder: str, attempt: str, replace: bool, manifest: Mapping[str, Any]) -> None:
        target = f"{folder}/{MANIFEST}"
        data = json.dumps(manifest, indent=1, ensure_ascii=False).encode()
        if isinstance(self.fs, LocalFileSystem):
            _flush_files(f"{folder}/{attempt}")
            _publish_locally(target, f"{folder}/.{attempt}.{MANIFEST}", data, replace)
            return
        if replace:
            self.fs.pipe_file(target, data)
            return
        with contextlib.suppress(FileExistsError):  # another run was first with the same key: its artifact stands
            self.fs.pipe_file(target, data, mode="create")

    def _remove_dead_attempts(self, folder: str) -> None:
        """Remove files of attempts that died on this machine; live writers and the committed attempt stay."""
        try:
            names = [entry.rstrip("/").rpartition("/")[2] for entry in self.fs.ls(folder, detail=False)]
        except FileNotFoundError:
            return
        committed = None
        with contextlib.suppress(OSError, ValueError):
            committed = json.loads(self.fs.cat_file(f"{folder}/{MANIFEST}")).get("attempt")
        for name in names:
            host, _, rest = name.removeprefix(".").rpartition("-")[0].rpartition("-")
            if name != committed and host == socket.gethostname() and rest.isdigit() and not _alive(int(rest)):
                self.fs.rm(f"{folder}/{name}", recursive=True)


def _publish_locally(target: str, temporary: str, data: bytes, replace: bool) -> None:
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    if replace:
        os.replace(temporary, target)
        return
    with contextlib.suppress(FileExistsError):  # another run was first with the same key: its artifact stands
        os.link(temporary, target)
    os.unlink(temporary)


def _flush_files(folder: str) -> None:
    for path in Path(folder).rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"
