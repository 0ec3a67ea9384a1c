"""`plm export`: a checkpoint from any layout into another, tensors bit for bit; the directory appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from components.errors import UserError


def export(source: str, target: str, layout: str) -> dict[str, Any]:
    """Write the checkpoint at `source` (a directory or hub id) to the new directory `target`; UserError when it cannot be."""
    from plm_model.hub import local_directory
    from plm_model.layouts import read_checkpoint, write_checkpoint

    place = Path(target).absolute()
    if place.is_file() or (place.is_dir() and any(place.iterdir())):
        raise UserError(f"{target} exists already; remove it or give another --to")
    partial = place.with_name(f".{place.name}.partial-{os.getpid()}")
    try:
        checkpoint = read_checkpoint(local_directory(source))
        notes = [*checkpoint.notes, *write_checkpoint(checkpoint, partial, layout)]
        partial.replace(place)
    except ValueError as error:  # every error of plm_model about its input is one
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(f"{error.filename or target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return {
        "from": str(checkpoint.directory),
        "from_format": checkpoint.layout,
        "to": str(place),
        "format": layout,
        "tensors": len(checkpoint.tensors),
        "notes": [note.replace(str(partial), str(place)) for note in notes],
    }


def show_export(result: dict[str, Any]) -> None:
    """One line on standard output, each note as a warning on standard error."""
    for note in result["notes"]:
        print(f"warning: {note}", file=sys.stderr)
    print(f"{result['tensors']} tensors  {result['from_format']} {result['from']} -> {result['format']} {result['to']}")
