"""An artifact that exists is whole: files go to a fresh prefix, the manifest is committed last, readers require it.

Layout below the storage root, the same on a local disk and on an object store:

    artifacts/<step>/<key>/<attempt>/...     files of one attempt
    artifacts/<step>/<key>/manifest.json     names the attempt whose files are the artifact; appears at once or not at all
    artifacts/<step>/<key>/damaged.json      files that a reader found damaged; only where there are such

The key is the digest of what goes into a step (`StepKey`), the artifact's digest is that of what came out.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from fsspec.implementations.local import LocalFileSystem

from components.artifacts.files import bring, filesystem
from components.artifacts.manifest import MANIFEST as MANIFEST
from components.artifacts.manifest import SEAL, BrokenManifest, read_manifest
from components.artifacts.manifest import content_digest as content_digest
from components.artifacts.manifest import digest_of as digest_of
from components.artifacts.marks import add_mark
from components.artifacts.sums import GONE, DamagedFile, cure, difference
from components.artifacts.writer import COPY_BYTES as COPY_BYTES
from components.artifacts.writer import ArtifactWriter as ArtifactWriter


@dataclass(frozen=True)
class StepKey:
    """What determines a step's result: digests of its inputs, its settings, the code that it runs, versions of libraries."""

    step: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict)
    libraries: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """Hex sha256 over all parts."""
        return digest_of(asdict(self))


@dataclass(frozen=True)
class Artifact:
    """A whole artifact. `uri` is the prefix of its files, `manifest` what was recorded of it.

    Its manifest was verified when it was found, its files are when they are read: once for each of these objects and file,
    by the process that reads it. What differs from its sum is a DamagedFile, and is noted for whoever comes next.
    """

    uri: str
    manifest: Mapping[str, Any]
    cache_dir: Path
    _sound: set[tuple[str, int, int]] = field(default_factory=set, init=False, repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return Artifact, (self.uri, self.manifest, self.cache_dir)  # another process reads, and verifies, for itself

    @property
    def step(self) -> str:
        step: str = self.manifest["step"]
        return step

    @property
    def key(self) -> str:
        key: str = self.manifest["key"]
        return key

    @property
    def digest(self) -> str:
        """32 hex characters of the sha256 over the relative paths and contents of all files, but for those set aside."""
        digest: str = self.manifest["digest"]
        return digest

    @property
    def files(self) -> Mapping[str, Mapping[str, Any]]:
        """Relative path -> {size (bytes), sha256 (hex)}."""
        files: Mapping[str, Mapping[str, Any]] = self.manifest["files"]
        return files

    @property
    def counts(self) -> Mapping[str, Any]:
        counts: Mapping[str, Any] = self.manifest["counts"]
        return counts

    def require_schema(self, schema: str) -> None:
        """DamagedFile unless its files are in this format: an earlier version's are made anew, not understood by half."""
        if (found := self.manifest.get("schema", "none")) != schema:
            raise DamagedFile(f"{self.uri}: its format is {found}, and {schema} is needed; {cure(self.step)}")

    @property
    def links(self) -> Mapping[str, str]:
        """URIs that the files refer to: where media lie, for one."""
        root = self.uri.rsplit("/", 4)[0]
        return {name: from_root(link, root) for name, link in self.manifest["links"].items()}

    def open(self, rel: str, mode: str = "rb") -> IO[Any]:
        """Open one file for reading, verified; text modes are UTF-8."""
        return open(self.local(rel), mode, encoding=None if "b" in mode else "utf-8")

    def read_json(self, rel: str) -> Any:
        with self.open(rel) as file:
            return json.load(file)

    def local(self, rel: str | None = None) -> Path:
        """The file `rel`, or the folder of all files, on this machine and verified; what is remote comes to the cache once."""
        fs, path = filesystem(self.uri)
        here = isinstance(fs, LocalFileSystem)
        folder = Path(path) if here else self.cache_dir / "artifacts" / self.manifest.get(SEAL, self.digest)[:20]

        def bring_here(name: str) -> None:
            if here:
                self.require_sound(name, folder / name)
            else:
                self._download(fs, f"{path}/{name}", name, folder / name)

        if rel is not None:
            bring_here(rel)
            return folder / rel
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(bring_here, self.files))
        return folder

    def require_sound(self, rel: str, path: Path) -> None:
        """DamagedFile unless the file at `path` is the file `rel` as it was recorded. Looks at it once."""
        if problem := self.problem(rel, path):
            raise self.damaged(rel, problem)

    def problem(self, rel: str, path: Path) -> str | None:
        """How a local file differs from what was recorded of `rel`, as the end of a sentence; None where it does not."""
        if rel not in self.files:
            raise FileNotFoundError(errno.ENOENT, "is not a file of this artifact", f"{self.uri}/{rel}")
        try:
            stat = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return GONE
        known = (rel, stat.st_dev, stat.st_ino)  # another file that takes its name is looked at again
        entry = {"size": self.files[rel]["size"]} if known in self._sound else self.files[rel]
        found = difference(path, entry)
        if found is None:
            self._sound.add(known)
        return found

    def require_stored(self, rels: Iterable[str]) -> None:
        """DamagedFile unless these files are as they were recorded, where they lie: for readers of parts of remote files."""
        fs, path = filesystem(self.uri)

        def require(rel: str) -> None:
            if isinstance(fs, LocalFileSystem):
                self.require_sound(rel, Path(path, rel))
            elif problem := difference(f"{path}/{rel}", self.files[rel], fs):
                raise self.damaged(rel, problem)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(require, rels))

    def damaged(self, rel: str, problem: str) -> DamagedFile:
        """The error for a damaged file, after a note beside the manifest that makes the next run look at it first."""
        if SEAL in self.manifest:
            fs, path = filesystem(self.uri)
            add_mark(fs, path, rel)
        return DamagedFile(f"{self.uri}/{rel} {problem}; {cure(self.step)}")

    def _download(self, fs: Any, remote: str, rel: str, target: Path) -> None:
        if target.exists() and self.problem(rel, target) is None:
            return
        try:
            problem = bring(
                lambda place: fs.get_file(remote, str(place)), target, lambda place: self.problem(rel, place)
            )
        except FileNotFoundError:
            problem = GONE
        if problem is not None:
            raise self.damaged(rel, problem)


def from_root(link: str, root: str) -> str:
    """The URI of a link that a manifest below `root` holds: what lies below the same root is written relative to it."""
    return link if "://" in link or link.startswith("/") else f"{root}/{link}"


def to_root(uri: str, root: str) -> str:
    """A URI as manifests below `root` hold it, so that the root can be moved."""
    return uri.removeprefix(f"{root}/")


def require_sound(directory: str | Path) -> None:
    """DamagedFile where a local directory is one of our artifacts, as a trained model's is, and a file of it is damaged."""
    place = Path(directory).absolute()
    if place.is_dir() and (found := artifact_at(str(place), place)):
        found.local()


def artifact_at(uri: str, cache_dir: Path) -> Artifact | None:
    """The artifact whose files lie at `uri`; None where that is no committed attempt. DamagedFile for a broken manifest."""
    folder, _, attempt = uri.rstrip("/").rpartition("/")
    fs, path = filesystem(folder)
    try:
        manifest = read_manifest(fs.cat_file(f"{path}/{MANIFEST}"))
    except (FileNotFoundError, IsADirectoryError):
        return None
    except BrokenManifest as error:
        step = folder.rsplit("/", 2)[-2] if folder.count("/") > 1 else ""
        raise DamagedFile(f"{folder}/{MANIFEST} {error}; {cure(step)}") from None
    return Artifact(f"{folder}/{attempt}", manifest, cache_dir) if manifest["attempt"] == attempt else None
