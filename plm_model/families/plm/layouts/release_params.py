"""A release's `params.json`, kept whole beside the other layouts, so that an export can write it back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plm_model.model_directory.json_files import read_json
from plm_model.model_directory.opened import ModelDirectory, write_json

ORIGINAL_PARAMS = "original_params.json"


def read_original_params(directory: Path) -> dict[str, Any] | None:
    """The release's `params.json` that an export left beside another layout."""
    path = directory / ORIGINAL_PARAMS
    return read_json(path) if path.exists() else None


def write_original_params(opened: ModelDirectory, directory: Path) -> None:
    if opened.original_params is not None:
        write_json(directory / ORIGINAL_PARAMS, opened.original_params)
