"""Which Parquet files of a data set are read: those of its training split, where their names say splits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from components.errors import UserError

EVERY = "**/*.parquet"
TRAIN = {"train", "training"}
HELD_OUT = {"test", "testing", "validation", "valid", "val", "dev", "eval", "evaluation"}


@dataclass(frozen=True)
class Chosen:
    """The files to read by their path in the data set, sorted, and the paths of those that are left to evaluation."""

    files: dict[str, Path]
    left_out: Sequence[str] = ()

    def said(self) -> str:
        """What is said of files that are left out, or of a test split that is read for want of another; else empty."""
        if self.left_out:
            return (
                f"{len(self.left_out)} files of a test or validation split are not read, such as {self.left_out[0]}; "
                f"ingest.source.files={EVERY} reads all"
            )
        held_out = [name for name in self.files if is_held_out(name)]
        return f"{len(held_out)} of a test or validation split are read, such as {held_out[0]}" if held_out else ""


def chosen_files(path: str, files: str | None) -> Chosen:
    """The files of a folder or of a data set on the hub, which is downloaded. UserError when there are none.

    Where `files` names them, these; else all, without those of a test or validation split beside others.
    """
    from plm_model.model_directory.hub import HubError, dataset_directory

    wanted = files or EVERY
    try:
        folder = dataset_directory(path, wanted)
    except HubError as error:
        raise UserError(f"ingest.source.path: {error}") from None
    found = {file.relative_to(folder).as_posix(): file for file in sorted(folder.glob(wanted)) if file.is_file()}
    if not found:
        raise UserError(f"{path}: no file is called {wanted}; ingest.source.files says which to read")
    training = {name: file for name, file in found.items() if not is_held_out(name)}
    if files or not training:
        return Chosen(found)
    return Chosen(training, [name for name in found if name not in training])


def is_held_out(name: str) -> bool:
    """Whether a file's name, or else a folder's, says that it is of a test or validation split: `data/test-00000-of-00001`."""
    for part in reversed(PurePosixPath(name.lower()).parts):
        words = set(re.split("[^a-z]+", part))
        if words & (TRAIN | HELD_OUT):
            return not words & TRAIN
    return False
