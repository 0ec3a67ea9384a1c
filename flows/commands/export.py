"""`plm export`: a checkpoint from any layout into another, tensors bit for bit; the directory appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.artifacts.artifact import require_sound
from components.errors import UserError
from components.layers import read_file
from components.terminal_text import one_line

if TYPE_CHECKING:
    from plm_model.checkpoint import Checkpoint


def export(source: str, target: str, layout: str, tower: str | None = None, model: str | None = None) -> dict[str, Any]:
    """Write the checkpoint at `source` (a directory or hub id) to the new directory `target`; UserError when it cannot be.

    With `tower`, a Perception Encoder's `.pt`, `source` is a Llama release, and both become the model that the YAML file
    `model` describes.
    """
    from plm_model.layouts import write_checkpoint

    place = Path(target).absolute()
    if place.is_file() or (place.is_dir() and any(place.iterdir())):
        raise UserError(f"{target} exists already; remove it or give another --to")
    require_sound(source)
    partial = place.with_name(f".{place.name}.partial-{os.getpid()}")
    try:
        checkpoint = opened(source, tower, model)
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


def opened(source: str, tower: str | None, model: str | None) -> Checkpoint:
    """The checkpoint to write: one as it is, or one assembled."""
    from plm_model.assembly import assemble
    from plm_model.config import PLMConfig
    from plm_model.hub import local_directory
    from plm_model.layouts import read_checkpoint

    if (tower is None) != (model is None):
        raise UserError("--tower and --model go together: the encoder's .pt and the YAML file of the model to assemble")
    if tower is None or model is None:
        return read_checkpoint(local_directory(source))
    config = PLMConfig.from_dict(read_file(model).values.get("architecture", {}))
    return assemble(config, local_directory(source), Path(tower))


def show_export(result: dict[str, Any]) -> None:
    """One line on standard output, each note as a warning on standard error."""
    for note in result["notes"]:
        print(f"warning: {one_line(note)}", file=sys.stderr)
    said = f"{result['tensors']} tensors  {result['from_format']} {result['from']} -> {result['format']} {result['to']}"
    print(one_line(said))
