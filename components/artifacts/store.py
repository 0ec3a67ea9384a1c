"""Artifacts below a storage root: found whole or not at all, made in a fresh prefix, committed by their manifest.

Two runs may make the same key at once: the first commit stands, and the other's files are not used.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from components.artifacts.artifact import Artifact, ArtifactWriter, StepKey, to_root
from components.artifacts.attempts import mend, new_name, remove, remove_dead, size_of, sizes_below, standing_attempt
from components.artifacts.files import absolute_uri, filesystem
from components.artifacts.manifest import MANIFEST, BrokenManifest, Damage, content_digest, read_manifest, sealed
from components.artifacts.marks import marked, remove_mark
from components.artifacts.sums import GONE, difference, is_local
from components.errors import UserError

log = logging.getLogger(__name__)


class ArtifactStore:
    """All artifacts below one storage root; what unfinished steps resume lies below `resume_root`, which may be elsewhere."""

    def __init__(self, root: str, cache_dir: str | os.PathLike[str], resume_root: str | None = None) -> None:
        self.root = absolute_uri(root)
        self.resume_root = absolute_uri(resume_root) if resume_root else self.uri("resume")
        self.cache_dir = Path(cache_dir).absolute()
        self.fs, self.fs_path = filesystem(self.root)
        for key, place in self._roots():
            if "://" in place and set("*?[") & set(place):  # removing or moving below it would expand the pattern
                raise UserError(f"{key} {place}: must not hold any of * ? [")

    def uri(self, *parts: str) -> str:
        """A URI below the root."""
        return "/".join((self.root, *parts))

    def resume_uri(self, *parts: str) -> str:
        """A URI below the root of what unfinished steps resume."""
        return "/".join((self.resume_root, *parts))

    def check(self) -> None:
        """Write, read and delete a small object, and try a hard link. Raises UserError when a root cannot be used."""
        for key, root in self._roots():
            try:
                _probe(key, root)
            except Exception as error:  # botocore, aiohttp and OSError families: each means the same to the user
                raise UserError(f"{key} {root}: cannot be written: {_short(error)}") from None

    def _roots(self) -> list[tuple[str, str]]:
        apart = self.resume_root != self.uri("resume")
        return [("storage.root", self.root), *([("storage.resume_root", self.resume_root)] if apart else [])]

    def find(self, key: StepKey) -> Artifact | None:
        """The artifact of a key, if it is there and nothing is known to be wrong with it."""
        return self.find_digest(key.step, key.digest)

    def find_digest(self, step: str, digest: str) -> Artifact | None:
        """The same for a key of which only the digest is known."""
        found = self.look(step, digest)
        return found if isinstance(found, Artifact) else None

    def look(self, step: str, digest: str) -> Artifact | Damage | None:
        """The artifact of a key, what is wrong with it, or None where there is none.

        Looked at are the manifest, the size of every file, the links, and the files that a reader found damaged before;
        the others are verified when they are read. Raises OSError when the store does not answer: that says nothing.
        """
        try:
            found = self.recorded(step, digest)
        except BrokenManifest as error:
            return Damage(MANIFEST, str(error))
        return found and (self._damage(found) or found)

    def recorded(self, step: str, key: str) -> Artifact | None:
        """What a key's manifest says, without a look at the files; at least 20 characters of the key are needed.

        None where there is no manifest. Raises BrokenManifest.
        """
        folder = f"{self.fs_path}/artifacts/{step}/{key[:20]}"
        manifest = self._manifest_in(folder)
        if manifest is None:
            return None
        if not manifest["key"].startswith(key):
            raise BrokenManifest("is of another key")
        return Artifact(self.uri("artifacts", step, key[:20], manifest["attempt"]), manifest, self.cache_dir)

    def _manifest_in(self, folder: str) -> dict[str, Any] | None:
        """The manifest in the folder of a key; None where there is none. Raises BrokenManifest."""
        try:
            return read_manifest(self.fs.cat_file(f"{folder}/{MANIFEST}"))
        except FileNotFoundError:
            return None
        except IsADirectoryError:
            raise BrokenManifest("is a folder") from None

    def _damage(self, artifact: Artifact) -> Damage | None:
        """What is known to be wrong with the files of an artifact, or with what they refer to."""
        folder, _, attempt = f"{self.fs_path}{artifact.uri[len(self.root) :]}".rpartition("/")
        files = artifact.files
        found = sizes_below(self.fs, f"{folder}/{attempt}")
        for rel, entry in files.items():
            size = found[rel] if rel in found else size_of(self.fs, f"{folder}/{attempt}/{rel}")
            if size != entry["size"]:
                return Damage(rel, GONE if size is None else f"has {size:,} bytes instead of {entry['size']:,}")
        for name, link in artifact.links.items():
            if not self.leads(link):
                return Damage(f"link {name}", f"leads to {link}, which is not there any more")
        for rel in marked(self.fs, folder, attempt):
            if rel in files and (problem := difference(f"{folder}/{attempt}/{rel}", files[rel], self.fs)):
                return Damage(rel, problem)
        return None

    def leads(self, uri: str) -> bool:
        """Whether the URI of an artifact's files still leads to one: to the committed attempt of its key, where it is ours.

        An absolute path to elsewhere must be there; other URIs are taken for good.
        """
        folder, _, attempt = uri.rpartition("/")
        if not folder.startswith(f"{self.root}/artifacts/"):
            return "://" in uri or os.path.exists(uri)
        try:
            manifest = self._manifest_in(f"{self.fs_path}{folder[len(self.root) :]}")
        except BrokenManifest:
            return False
        return manifest is not None and manifest["attempt"] == attempt

    @contextlib.contextmanager
    def create(self, key: StepKey, inputs: Mapping[str, Artifact] | None = None) -> Iterator[ArtifactWriter]:
        """Yield a writer; commit when the block ends well, remove what was written when it raises.

        Where the key already has a manifest (a refresh, or a damaged artifact), the new one replaces it; what came out the
        same stays where it was. Nothing but what this call wrote is removed before there is a new manifest. What the writer
        holds in `after_commit` is called last.
        """
        folder = f"{self.fs_path}/artifacts/{key.step}/{key.digest[:20]}"
        replace = self.fs.exists(f"{folder}/{MANIFEST}")
        attempt = new_name()
        path = f"{folder}/{attempt}"
        if is_local(self.fs):
            os.makedirs(path)
        out = ArtifactWriter(self.uri("artifacts", key.step, key.digest[:20], attempt), self.fs, path)
        started = time.time()
        try:
            yield out
            manifest = self._manifest(key, inputs or {}, out, attempt, started)
            standing = standing_attempt(self.fs, folder, manifest)
            if standing:
                mend(self.fs, f"{folder}/{standing}", path, manifest["files"])
            self._commit(folder, {**manifest, "attempt": standing or attempt}, replace)
        except BaseException:
            remove(self.fs, path)
            raise
        if standing:
            remove(self.fs, path)
        remove_mark(self.fs, folder)
        remove_dead(self.fs, folder)
        for call in out.after_commit:
            call()

    def _manifest(
        self, key: StepKey, inputs: Mapping[str, Artifact], out: ArtifactWriter, attempt: str, started: float
    ) -> dict[str, Any]:
        files = out.recorded_files()
        used = {
            name: {"uri": to_root(a.uri, self.root), "digest": a.digest, "step": a.step} for name, a in inputs.items()
        }
        return {
            "step": key.step,
            **({"schema": out.schema} if out.schema else {}),
            "key": key.digest,
            "digest": content_digest(files),
            "attempt": attempt,
            "inputs": used,
            "input_digests": dict(key.inputs),
            "config": key.config,
            "code": key.code,
            "counts": out.counts,
            "links": {name: to_root(link, self.root) for name, link in out.links.items()},
            "bytes": sum(entry["size"] for entry in files.values()),
            "started": started,
            "seconds": round(time.time() - started, 3),
            "files": files,
        }

    def _commit(self, folder: str, manifest: Mapping[str, Any], replace: bool) -> None:
        target, data = f"{folder}/{MANIFEST}", sealed(manifest)
        if is_local(self.fs):
            _flush_files(f"{folder}/{manifest['attempt']}")
            _publish_locally(target, f"{folder}/.{new_name()}.{MANIFEST}", data, replace)
            return
        if replace:
            self.fs.pipe_file(target, data)
            return
        with contextlib.suppress(FileExistsError):  # another run was first with the same key: its artifact stands
            self.fs.pipe_file(target, data, mode="create")


def has_links(path: str) -> bool:
    """Whether the disk under a local file has hard links, tried beside it."""
    try:
        os.link(path, f"{path}.link")
    except OSError:
        return False
    os.unlink(f"{path}.link")
    return True


def _publish_locally(target: str, temporary: str, data: bytes, replace: bool) -> None:
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    if replace:
        if os.path.isdir(target):  # whatever made it so
            shutil.rmtree(target)
        os.replace(temporary, target)
        return
    try:
        os.link(temporary, target)
    except FileExistsError:
        pass  # another run was first with the same key: its artifact stands
    except OSError:  # a disk that has no links: the lock of the key keeps others away meanwhile
        if not os.path.exists(target):
            os.replace(temporary, target)
            return
    os.unlink(temporary)


def _flush_files(folder: str) -> None:
    for path in Path(folder).rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())


def _probe(key: str, root: str) -> None:
    fs, path = filesystem(root, probe=True)
    if is_local(fs):
        os.makedirs(path, exist_ok=True)
    probe = f"{path}/.probe-{uuid.uuid4().hex}"
    fs.pipe_file(probe, b"probe")
    if is_local(fs) and not has_links(probe):
        log.warning("%s %s: this disk has no hard links; files are copied instead", key, root)
    fs.rm_file(probe)


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"
