"""A bucket prefix as an origin: objects gather in a local cache that outlives a killed ingest, until they are in place."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from components.ingest.parts import Part
from components.ingest.sources.origin import Head, SourceFile, digest_of_files
from components.ingest.sources.s3_fetch import Download, fetch_objects
from components.ingest.sources.s3_listing import connect, endpoint_of, list_objects, split_uri
from components.settings import PositiveInt, Settings, Uri

if TYPE_CHECKING:
    from components.artifacts.artifact import ArtifactWriter
    from components.artifacts.context import StepContext


class S3Source(Settings):
    """A bucket prefix with images and a CSV or JSONL that names and labels them."""

    WITHOUT_EFFECT: ClassVar[frozenset[str]] = frozenset({"parallel", "part_bytes"})
    on_disk: ClassVar[bool] = False

    kind: Literal["s3"] = "s3"
    uri: Uri = Field(description="s3://bucket/prefix")
    annotations: str = Field("labels.csv", description="CSV or JSONL key below the prefix")
    parallel: PositiveInt = Field(8, description="objects that are fetched at the same time")
    part_bytes: PositiveInt = Field(8 << 20, description="objects above this size are fetched in ranges of it")

    def fingerprint(self) -> str:
        """Digest of the keys, sizes and etags of all its objects."""
        return digest_of_files(list_objects(connect(self.uri, self.parallel), self.uri).values())

    def bring(self, image_column: str, out: ArtifactWriter, context: StepContext) -> list[Part]:
        """The annotations and the objects that they name; what was fetched is kept until `out` is committed."""
        from components.ingest.arrival import annotations_below, bring_in

        parts = [Part(annotations_below(self.annotations))]
        origin = S3Origin(self, context.cache_dir)
        out.after_commit.append(origin.forget_unless_in_use)
        try:
            if context.fresh:
                origin.forget()
            return bring_in(origin, parts, image_column, out, context)
        finally:
            origin.close()

    def problems(self) -> Iterator[str]:
        """None that a look would show."""
        return iter(())

    def head(self, most: int) -> Head | None:
        """The first bytes of the annotations."""
        from components.ingest.arrival import head_of

        return head_of(self.uri.rstrip("/"), self.annotations, most)


class S3Origin:
    """An opened prefix. While it is open no other process of this machine fetches the same prefix."""

    disposable = True

    def __init__(self, source: S3Source, cache_dir: Path) -> None:
        self.uri = source.uri.rstrip("/")
        self.parallel, self.part_bytes = source.parallel, source.part_bytes
        self.bucket, self.prefix = split_uri(source.uri)
        self.client = connect(self.uri, source.parallel)
        self.files: Mapping[str, SourceFile] = list_objects(self.client, self.uri)
        name = hashlib.sha256(f"{endpoint_of(self.client)}\0{self.uri}".encode()).hexdigest()[:20]
        self.folder = cache_dir / "ingest" / name
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        from filelock import FileLock

        self._lock = FileLock(self.folder.with_suffix(".lock"), thread_local=False)
        self._lock.acquire()

    def roots(self, part: Part) -> tuple[str, ...]:
        return (self.uri,)

    def find(self, name: str) -> SourceFile | None:
        return self.files.get(name)

    def fetch(self, files: Sequence[SourceFile], report: Callable[[int], None]) -> Iterator[tuple[SourceFile, Path]]:
        self.folder.mkdir(exist_ok=True)
        downloads = [
            Download(self.bucket, f"{self.prefix}{file.path}", file.size, file.version, self.folder, self.part_bytes)
            for file in files
        ]
        fetch_objects(self.client, downloads, self.parallel, report)
        yield from ((file, download.path) for file, download in zip(files, downloads, strict=True))

    def forget(self) -> None:
        """Remove what has been fetched; only while it is open."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def forget_unless_in_use(self) -> None:
        """The same after it was closed; another ingest that takes from the cache right now removes it itself."""
        with contextlib.suppress(TimeoutError), self._lock.acquire(blocking=False):
            self.forget()

    def close(self) -> None:
        """Let others in."""
        self._lock.release()
