"""A folder of images with its annotations; no path in them, and no link, leads out of the folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from components.errors import UserError
from components.ingest.parts import Part
from components.ingest.sources.origin import Check, Head, SourceFile, digest_of_files
from components.media_files.path import OutsideRoot, shown
from components.settings import LocalPath, Settings

if TYPE_CHECKING:
    from components.artifacts.artifact import ArtifactWriter
    from components.artifacts.context import StepContext


class FolderSource(Settings):
    """A folder of images with a CSV or JSONL that names and labels them."""

    on_disk: ClassVar[bool] = True

    kind: Literal["folder"] = "folder"
    path: LocalPath = Field(description="the folder")
    annotations: str = Field("labels.csv", description="CSV or JSONL file below path")
    check: Check = "times"

    def fingerprint(self) -> str:
        """Digest of the names, sizes and versions of all its files."""
        return digest_of_files(list_folder(data_folder(self.path), self.check).values())

    def bring(self, image_column: str, out: ArtifactWriter, context: StepContext) -> list[Part]:
        """The annotations and the files that they name."""
        from components.ingest.arrival import annotations_below, bring_in

        parts = [Part(annotations_below(self.annotations))]
        return bring_in(FolderOrigin(self.path, self.check), parts, image_column, out, context)

    def problems(self) -> Iterator[str]:
        """No folder, or no annotations in it."""
        if not (data_folder(self.path) / self.annotations).is_file():
            yield f"ingest.source.annotations: {self.path}/{self.annotations}: no such file"

    def head(self, most: int) -> Head | None:
        """The first bytes of the annotations."""
        from components.ingest.arrival import head_of

        return head_of(self.path, self.annotations, most)


class FolderOrigin:
    """An opened folder. `files` lists every regular file below it."""

    disposable = False

    def __init__(self, path: str, check: Check = "times") -> None:
        self.root, self.check = data_folder(path), check
        self.uri = str(self.root)
        self.spellings = tuple(dict.fromkeys((str(Path(path).expanduser().absolute()), self.uri)))
        self.files: Mapping[str, SourceFile] = list_folder(self.root, check)

    def roots(self, part: Part) -> tuple[str, ...]:
        return self.spellings

    def find(self, name: str) -> SourceFile | None:
        try:
            real = (self.root / name).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):  # missing, too long, a NUL byte, a loop of links
            return None
        if not real.is_relative_to(self.root):
            raise OutsideRoot(f"{shown(name)} is a link that leads out of the data root {self.root}")
        return self.files.get(name) or (source_file(name, real, self.check) if real.is_file() else None)

    def fetch(self, files: Sequence[SourceFile], report: Callable[[int], None]) -> Iterator[tuple[SourceFile, Path]]:
        for file in files:
            path = self.root / file.path
            try:
                path.open("rb").close()
            except OSError as error:
                raise UserError(f"{path}: cannot be read: {error.strerror}") from None
            yield file, path
            report(file.size)


def data_folder(path: str) -> Path:
    """The real path of a data folder. Raises UserError when it is none."""
    root = Path(path).expanduser()
    if not root.is_dir():
        raise UserError(f"ingest.source.path: {path}: {'not a folder' if root.exists() else 'no such folder'}")
    return root.resolve()


def list_folder(root: Path, check: Check = "times") -> dict[str, SourceFile]:
    """All regular files below a folder, sorted by relative path."""
    found: list[Path] = []
    for folder, _, names in os.walk(root):
        found.extend(Path(folder, name) for name in names)
    files = ((path.relative_to(root).as_posix(), path) for path in found if path.is_file())
    return {name: source_file(name, path, check) for name, path in sorted(files)}


def source_file(name: str, path: Path, check: Check = "times") -> SourceFile:
    """A file of the disk under a name; its version is the modification time in ns, or the sha256 of its contents."""
    status = path.stat()
    if check == "times":
        return SourceFile(name, status.st_size, str(status.st_mtime_ns))
    with open(path, "rb") as file:
        return SourceFile(name, status.st_size, hashlib.file_digest(file, "sha256").hexdigest())
