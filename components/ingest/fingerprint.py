"""A cheap digest of a source's state: when it is the same, so are the files that an ingest would bring."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from components.ingest.settings import DigitsSource, FolderSource, ParquetSource, PlmSource, Source
from components.ingest.sources.catalogue import RegistryOrigin, data_sets
from components.ingest.sources.folder import data_folder, list_folder, source_file
from components.ingest.sources.origin import SourceFile
from components.ingest.sources.parquet_files import EVERY
from components.ingest.sources.s3_listing import connect, list_objects


def source_fingerprint(source: Source) -> str:
    """Digest of names, sizes and modification times or etags; reads contents only where `ingest.source.check` says so.

    Raises UserError when the source cannot be listed.
    """
    if isinstance(source, DigitsSource):
        return f"digits of scikit-learn {version('scikit-learn')}, pillow {version('pillow')}"
    if isinstance(source, FolderSource):
        return _digest(list_folder(data_folder(source.path), source.check).values())
    if isinstance(source, PlmSource):
        return _digest(RegistryOrigin(data_sets(source), source.check).files.values())
    if isinstance(source, ParquetSource):
        folder = Path(source.path)
        files = (
            source_file(str(file), file, source.check)
            for file in sorted(folder.glob(source.files or EVERY))
            if file.is_file()
        )
        return _digest(files) if folder.is_dir() else f"hub data set {source.path}"
    return _digest(list_objects(connect(source.uri, source.parallel), source.uri).values())


def _digest(files: Iterable[SourceFile]) -> str:
    sha = hashlib.sha256()
    for file in files:
        sha.update(f"{file.path}\0{file.size}\0{file.version}\n".encode("utf-8", "surrogateescape"))
    return sha.hexdigest()
