"""Data sets by name: a YAML of `name: {annotation, root_dir}`, as the original's `datasets.yaml`.

`annotation` is a JSONL file, or a folder of `*chunk*.jsonl`; `root_dir` holds the media (default: the annotations' folder).
Both are paths from the current directory.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from components.errors import UserError
from components.ingest.parts import Part
from components.ingest.sources.folder import FolderOrigin, source_file
from components.ingest.sources.origin import Check, Head, SourceFile, digest_of_files
from components.layers import read_file
from components.settings import LocalPath, Settings

if TYPE_CHECKING:
    from components.artifacts.artifact import ArtifactWriter
    from components.artifacts.context import StepContext

NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
CHUNKS = "*chunk*.jsonl"
EXAMPLES = "runs/dummy_datasets"
KEYS = {"annotation", "root_dir"}


class CatalogueSource(Settings):
    """Data sets in PLM's format, by their names in a catalogue."""

    WITHOUT_EFFECT: ClassVar[frozenset[str]] = frozenset({"catalogue"})  # the data sets that it names count
    on_disk: ClassVar[bool] = True

    kind: Literal["catalogue"] = "catalogue"
    catalogue: LocalPath = Field("configs/datasets.yaml", description="YAML of name: {annotation, root_dir}")
    datasets: tuple[str, ...] = Field(min_length=1, description="names; default: those of train.datamix")
    check: Check = "times"

    def fingerprint(self) -> str:
        """Digest of the names, sizes and versions of all files of its data sets."""
        return digest_of_files(CatalogueOrigin(data_sets(self), self.check).files.values())

    def bring(self, image_column: str, out: ArtifactWriter, context: StepContext) -> list[Part]:
        """The annotations of each data set and the files that they name."""
        from components.ingest.arrival import bring_in

        origin = CatalogueOrigin(data_sets(self), self.check)
        return bring_in(origin, origin.parts, image_column, out, context)

    def problems(self) -> Iterator[str]:
        """A name that the catalogue does not have, a file that is not there, as UserError."""
        data_sets(self)
        return iter(())

    def head(self, most: int) -> Head | None:
        """Not told: each row is a conversation."""
        return None


@dataclass(frozen=True)
class DataSet:
    """A data set of the catalogue: its JSONL files in order, and the folder that its media paths are relative to."""

    name: str
    annotations: tuple[Path, ...]
    root: Path


def data_sets(source: CatalogueSource) -> list[DataSet]:
    """The data sets that a config names. UserError for an unknown name (with the nearest), or files that are not there."""
    catalogue = read_file(source.catalogue).values
    for name in source.datasets:
        if name not in catalogue:
            near = difflib.get_close_matches(name, catalogue, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(catalogue) or 'none'}"
            raise UserError(f"{source.catalogue}: no data set {name!r}; {hint}")
    return [_data_set(name, catalogue[name], f"{source.catalogue}: {name}") for name in source.datasets]


def _data_set(name: str, entry: Any, where: str) -> DataSet:
    if not NAME.fullmatch(name):
        raise UserError(f"{where}: a name has letters, digits, `_`, `-` and `.` only")
    if not isinstance(entry, Mapping) or not isinstance(entry.get("annotation"), str) or entry.keys() - KEYS:
        raise UserError(f"{where}: must be {{annotation: FILE_OR_FOLDER, root_dir: FOLDER}}")
    annotation = Path(entry["annotation"])
    files = sorted(annotation.glob(CHUNKS)) if annotation.is_dir() else [annotation]
    if not files or not all(file.is_file() for file in files):
        what = f"no {CHUNKS} in it" if annotation.is_dir() else "no such file"
        raise UserError(f"{where}: annotation {annotation}: {what}{_cure(annotation)}")
    root = Path(entry.get("root_dir") or files[0].parent)
    if not root.is_dir():
        raise UserError(f"{where}: root_dir {root}: no such folder")
    return DataSet(name, tuple(files), root)


def _cure(annotation: Path) -> str:
    """The command that makes what is missing, where it is one of the shipped examples."""
    return f"; `python configs/dummy_datasets.py --to {EXAMPLES}` makes it" if EXAMPLES in annotation.as_posix() else ""


class CatalogueOrigin:
    """Several data sets as one origin: `annotations/<set>/<file>` and, below each set's root, `media/<set>/<path>`."""

    disposable = False
    uri = "catalogue"  # every file's version names the place that it comes from

    def __init__(self, sets: Sequence[DataSet], check: Check = "times") -> None:
        self.roots_of_sets = {each.name: FolderOrigin(str(each.root), check) for each in sets}
        annotations = {
            f"annotations/{each.name}/{file.name}": (each, file) for each in sets for file in each.annotations
        }
        self.parts = [Part(path, f"media/{each.name}", each.name) for path, (each, _) in annotations.items()]
        self.annotations = {path: file.resolve() for path, (_, file) in annotations.items()}
        files = {
            path: _placed(source_file(path, file, check), str(file), path) for path, file in self.annotations.items()
        }
        for name, root in self.roots_of_sets.items():
            media = (_placed(file, root.uri, f"media/{name}/{file.path}") for file in root.files.values())
            files |= {file.path: file for file in media}
        self.files: Mapping[str, SourceFile] = files

    def roots(self, part: Part) -> tuple[str, ...]:
        return self.roots_of_sets[part.source or ""].spellings

    def find(self, name: str) -> SourceFile | None:
        if name in self.annotations:
            return self.files[name]
        _, data_set, inner = name.split("/", 2)
        root = self.roots_of_sets[data_set]
        found = root.find(inner)
        return found and _placed(found, root.uri, name)

    def fetch(self, files: Sequence[SourceFile], report: Callable[[int], None]) -> Iterator[tuple[SourceFile, Path]]:
        for file in files:
            if file.path in self.annotations:
                yield file, self.annotations[file.path]
                report(file.size)
                continue
            _, data_set, inner = file.path.split("/", 2)
            (_, path), *_ = self.roots_of_sets[data_set].fetch([SourceFile(inner, file.size, file.version)], report)
            yield file, path


def _placed(file: SourceFile, origin: str, path: str) -> SourceFile:
    return SourceFile(path, file.size, f"{file.version} {origin}")
