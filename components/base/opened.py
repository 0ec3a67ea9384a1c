"""The model that training starts from, as `model.init` names it: opened by its family, not yet read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.base.settings import ModelConfig
from components.errors import UserError
from plm_model.family import StartError, part

if TYPE_CHECKING:
    from plm_model.model_directory.opened import ModelDirectory


def open_base(model: ModelConfig) -> ModelDirectory:
    """The model directory to start from, headers only. UserError, in one line, for whatever cannot be started from."""
    try:
        return part(model.family, "directory").open_base(model)
    except StartError as error:
        raise UserError(str(error)) from None
    except ValueError as error:  # every error of plm_model about its input is one
        raise UserError(f"model.init {model.init}: {error}") from None


def source_state(model: ModelConfig) -> Mapping[str, Any]:
    """What identifies the weights, without reading them: names, sizes and times of local files; a hub id names its commit."""
    places = [Path(model.init), *([Path(model.tower)] if model.tower else [])]
    files = [file for place in places for file in _files(place)]
    return {str(file): [file.stat().st_size, file.stat().st_mtime_ns] for file in files}


def _files(place: Path) -> list[Path]:
    """The file, or those of a model directory, also in the subfolder `original` that a release may have."""
    if place.is_file():
        return [place]
    found = [*place.glob("*"), *place.glob("original/*")]
    return sorted(file for file in found if file.is_file() and not file.name.startswith("."))
