"""The media that a data set refers to but does not copy: its manifest links the root, records name paths below it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fsspec.implementations.local import LocalFileSystem

from components.artifacts import Artifact, filesystem
from components.errors import UserError

PARALLEL_DOWNLOADS = 8


@dataclass(frozen=True)
class MediaRoot:
    """The folder or bucket prefix below which a data set's media lie."""

    uri: str

    @classmethod
    def of(cls, dataset: Artifact) -> MediaRoot:
        """The root that a converted data set's manifest links."""
        return cls(dataset.links["media"].rstrip("/"))

    def read(self, rel: str) -> bytes:
        """The bytes of one file. Raises FileNotFoundError when it is not there."""
        fs, root = filesystem(self.uri)
        return fs.cat_file(f"{root}/{below_root(rel)}")

    def local(self, rels: Iterable[str], cache_dir: Path) -> dict[str, Path]:
        """Where each file lies on this machine; what is remote is downloaded once, eight at a time.

        A file that is missing at the root is missing at the place that is returned, too.
        """
        fs, root = filesystem(self.uri)
        rels = list(dict.fromkeys(rels))
        if isinstance(fs, LocalFileSystem):
            return {rel: Path(root) / below_root(rel) for rel in rels}
        folder = cache_dir / "media" / hashlib.sha256(self.uri.encode()).hexdigest()[:20]
        with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
            return dict(zip(rels, pool.map(lambda rel: self._download(rel, folder), rels), strict=True))

    def _download(self, rel: str, folder: Path) -> Path:
        target = folder / below_root(rel)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
            with contextlib.suppress(FileNotFoundError):
                partial.write_bytes(self.read(rel))
                os.replace(partial, target)
        return target


def below_root(rel: str) -> str:
    """The path itself. Raises UserError when it would lead out of the root."""
    path = PurePosixPath(rel)
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"{rel}: an image path must stay below the data root")
    return rel
