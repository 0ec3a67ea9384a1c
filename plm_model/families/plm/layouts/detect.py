"""Checkpoints in any of the three layouts: which one a directory has, opening it, loading it, writing it.

own   config.json with model_type `plm`, safetensors
hf    Hugging Face: config.json with model_type `perception_lm`, safetensors
meta  Meta's release: params.json, consolidated.pth; also when it lies in a subfolder `original/` as on the hub
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Literal, get_args

import torch

from plm_model.families.plm.layouts.hf import read_hf, write_hf
from plm_model.families.plm.layouts.hf_config import MODEL_TYPE as HF_MODEL_TYPE
from plm_model.families.plm.layouts.meta import PARAMS, read_meta, write_meta
from plm_model.families.plm.layouts.release_params import read_original_params, write_original_params
from plm_model.families.plm.model import PLM
from plm_model.families.plm.tokenizer import Tokenizer
from plm_model.families.plm.weights import (
    MODEL_TYPE,
    load,
    load_config,
    require_tokenizer_fits,
    save_companions,
    shapes_of,
)
from plm_model.model_directory.description import CONFIG
from plm_model.model_directory.files import save_tensors
from plm_model.model_directory.json_files import read_json
from plm_model.model_directory.opened import ModelDirectory, exactly
from plm_model.model_directory.safetensors_reader import stored_tensors
from plm_model.model_directory.safetensors_writer import SHARD_BYTES, WeightsError

Layout = Literal["own", "hf", "meta"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


def open_model(
    directory: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[PLM, Tokenizer]:
    """The model, in evaluation mode, and the tokenizer of a directory in any layout; what was assumed becomes a warning.

    WeightsError names the file, key or tensor that is wrong. Memory: the model and one tensor.
    """
    opened = read_directory(directory)
    for note in opened.notes:
        warnings.warn(note, stacklevel=2)
    return load(opened, device, dtype), opened.tokenizer


def read_directory(directory: str | Path) -> ModelDirectory:
    """Open a directory in any layout, reading headers only."""
    layout, root = detect_layout(Path(directory))
    return {"own": read_own, "hf": read_hf, "meta": read_meta}[layout](root)


def detect_layout(directory: Path) -> tuple[Layout, Path]:
    """A directory's layout, and the folder in it that has the files."""
    if not directory.is_dir():
        raise WeightsError(f"{directory}: no such directory")
    if (directory / CONFIG).exists():
        kind = read_json(directory / CONFIG).get("model_type")
        known: dict[str, Layout] = {MODEL_TYPE: "own", HF_MODEL_TYPE: "hf"}
        if isinstance(kind, str) and kind in known:
            return known[kind], directory
        raise WeightsError(f"{directory / CONFIG}: model_type is {kind!r}; supported are {', '.join(known)}")
    for folder in (directory, directory / "original"):
        if (folder / PARAMS).exists():
            return "meta", folder
    raise WeightsError(f"{directory}: not a model directory, it has neither {CONFIG} nor {PARAMS}")


def read_own(directory: Path) -> ModelDirectory:
    """Open a directory in our own layout."""
    config = load_config(directory)
    tokenizer = Tokenizer.from_file(directory)
    require_tokenizer_fits(tokenizer, config)
    tensors = exactly(shapes_of(config), stored_tensors(directory), directory)
    params = read_original_params(directory)
    return ModelDirectory(directory, "own", config, tokenizer, tensors, original_params=params)


def write_own(opened: ModelDirectory, directory: Path, max_shard_bytes: int = SHARD_BYTES) -> list[str]:
    """Write a model in our own layout, tensor by tensor in their own dtypes."""
    save_companions(opened.config, opened.tokenizer, directory)
    write_original_params(opened, directory)
    entries = {name: (tensor.dtype, tensor.shape) for name, tensor in opened.tensors.items()}
    save_tensors(directory, entries, opened.stream(), max_shard_bytes)
    return []


def write_directory(
    opened: ModelDirectory, directory: str | Path, layout: Layout, max_shard_bytes: int = SHARD_BYTES
) -> list[str]:
    """Write a model in a layout; returns notes on what could not be kept. Not atomic: write to a fresh directory.

    Files of tensors have at most `max_shard_bytes`, but for the `meta` layout, which has one file.
    """
    if layout == "meta":
        return write_meta(opened, Path(directory))
    return {"own": write_own, "hf": write_hf}[layout](opened, Path(directory), max_shard_bytes)
