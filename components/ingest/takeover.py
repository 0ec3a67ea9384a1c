"""Files that did not change since the last ingest are taken over from its artifact, without a look at the source.

A file is compared with its recorded sum before that becomes the sum of the new artifact's; a damaged one is fetched again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from components.artifacts.artifact import COPY_BYTES, Artifact, ArtifactWriter
from components.artifacts.files import filesystem
from components.artifacts.sums import DamagedFile
from components.ingest.sources.origin import SourceFile

PARALLEL = 8


def unchanged(previous: Artifact, uri: str, files: Sequence[SourceFile]) -> list[str]:
    """Paths whose size and version are those that the previous artifact recorded of the same source."""
    state = previous.counts.get("source_state") or {}
    if state.get("uri") != uri:
        return []
    versions, recorded = state["versions"], previous.files
    return [
        file.path
        for file in files
        if versions.get(file.path) == file.version and recorded.get(file.path, {}).get("size") == file.size
    ]


def take_over(out: ArtifactWriter, previous: Artifact, paths: Sequence[str]) -> set[str]:
    """Put files of the previous artifact into `out`; those that are gone or damaged are left out of the answer.

    On one disk they become hard links (artifacts never change), in one object store they are copied by the store: there they
    are compared when they are read.
    """
    fs, folder = filesystem(previous.uri)
    local, same_store = "://" not in previous.uri and "://" not in out.uri, type(fs) is type(out.fs)

    def take(path: str) -> bool:
        try:
            if local:
                if previous.problem(path, Path(folder, path)):
                    return False
                _link(f"{folder}/{path}", f"{out.path}/{path}")
            elif same_store:
                out.fs.cp_file(f"{folder}/{path}", f"{out.path}/{path}")
            else:
                _stream(previous, path, out)
        except (FileNotFoundError, DamagedFile):
            return False
        out.adopt(path, previous.files[path])
        return True

    with ThreadPoolExecutor(PARALLEL) as pool:
        return {path for path, taken in zip(paths, pool.map(take, paths), strict=True) if taken}


def _link(source: str, target: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # another disk, or one that has no links
        shutil.copyfile(source, target)


def _stream(previous: Artifact, path: str, out: ArtifactWriter) -> None:
    with previous.open(path) as source, out.open(path) as target:
        while chunk := source.read(COPY_BYTES):
            target.write(chunk)
