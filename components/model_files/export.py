"""A model directory from any layout into another, tensors bit for bit; the directory appears whole or not at all."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.artifacts.artifact import require_sound
from components.errors import UserError
from components.layers import read_file

if TYPE_CHECKING:
    from plm_model.model_directory.opened import ModelDirectory


def export(
    source: str,
    target: str,
    layout: str,
    tower: str | None = None,
    model: str | None = None,
    max_shard_gb: float = 5.0,
) -> dict[str, Any]:
    """Write the model at `source` (a directory or hub id) to the new directory `target`; UserError when it cannot be.

    With `tower`, the `.pt` of a vision tower, `source` is a language model, and both become the model that the YAML file
    `model` describes. Tensors go to files of at most `max_shard_gb`.
    """
    if not 0 < max_shard_gb < math.inf:
        raise UserError(f"--max-shard-gb {max_shard_gb:g}: must be a positive number")
    place = Path(target).absolute()
    if place.is_file() or (place.is_dir() and any(place.iterdir())):
        raise UserError(f"{target} exists already; remove it or give another --to")
    require_sound(source)
    partial = place.with_name(f".{place.name}.partial-{os.getpid()}")
    try:
        opened, notes = _write(source, partial, layout, tower, model, int(max_shard_gb * 1e9))
        partial.replace(place)
    except ValueError as error:  # every error of plm_model about its input is one
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(f"{error.filename or target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return {
        "from": str(opened.directory),
        "from_format": opened.layout,
        "to": str(place),
        "format": layout,
        "tensors": len(opened.tensors),
        "notes": [note.replace(str(partial), str(place)) for note in notes],
    }


def _write(
    source: str, target: Path, layout: str, tower: str | None, model: str | None, max_shard_bytes: int
) -> tuple[ModelDirectory, list[str]]:
    """Write the model to `target`; gives it, and notes on what was assumed or could not be kept."""
    from plm_model.family import FAMILIES, part
    from plm_model.model_directory.description import family_at
    from plm_model.model_directory.hub import local_directory

    if (tower is None) != (model is None):
        raise UserError("--tower and --model go together: the encoder's .pt and the YAML file of the model to assemble")
    if tower is None or model is None:
        directory = local_directory(source)
        family = part(family_at(directory), "directory")
        opened = family.read_directory(directory)
    else:
        values = read_file(model).values
        family = part(values.get("family", next(iter(FAMILIES))), "directory")
        opened = family.assembled(source, Path(tower), values.get("architecture", {}))
    if layout not in family.LAYOUTS:
        raise UserError(f"--format {layout}: this model is written as {', '.join(family.LAYOUTS)}")
    return opened, [*opened.notes, *family.write_directory(opened, target, layout, max_shard_bytes)]
