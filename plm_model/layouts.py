"""Checkpoints in any of the three layouts: which one a directory has, opening it, loading it, writing it.

plm   our own: config.json with model_type `plm`, safetensors
hf    Hugging Face: config.json with model_type `perception_lm`, safetensors
meta  Meta's release: params.json, consolidated.pth; also when it lies in a subfolder `original/` as on the hub
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from plm_model.checkpoint import (
    Checkpoint,
    Layout,
    exactly,
    load,
    read_original_params,
    require_tokenizer_fits,
    write_original_params,
)
from plm_model.hf_config import MODEL_TYPE as HF_MODEL_TYPE
from plm_model.hf_layout import read_hf, write_hf
from plm_model.json_files import read_json
from plm_model.meta_layout import PARAMS, read_meta, write_meta
from plm_model.plm import PLM
from plm_model.safetensors_writer import WeightsError
from plm_model.stored_safetensors import stored_tensors
from plm_model.tokenizer import Tokenizer
from plm_model.weights import CONFIG, MODEL_TYPE, load_config, save_companions, save_tensors


def open_checkpoint(
    directory: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[PLM, Tokenizer]:
    """The model, in evaluation mode, and the tokenizer of a directory in any layout; what was assumed becomes a warning.

    WeightsError names the file, key or tensor that is wrong. Memory: the model and one tensor.
    """
    checkpoint = read_checkpoint(directory)
    for note in checkpoint.notes:
        warnings.warn(note, stacklevel=2)
    return load(checkpoint, device, dtype), checkpoint.tokenizer


def read_checkpoint(directory: str | Path) -> Checkpoint:
    """Open a directory in any layout, reading headers only."""
    layout, root = detect_layout(Path(directory))
    return {"plm": read_plm, "hf": read_hf, "meta": read_meta}[layout](root)


def detect_layout(directory: Path) -> tuple[Layout, Path]:
    """A directory's layout, and the folder in it that has the files."""
    if not directory.is_dir():
        raise WeightsError(f"{directory}: no such directory")
    if (directory / CONFIG).exists():
        kind = read_json(directory / CONFIG).get("model_type")
        known: dict[str, Layout] = {MODEL_TYPE: "plm", HF_MODEL_TYPE: "hf"}
        if isinstance(kind, str) and kind in known:
            return known[kind], directory
        raise WeightsError(f"{directory / CONFIG}: model_type is {kind!r}; supported are {', '.join(known)}")
    for folder in (directory, directory / "original"):
        if (folder / PARAMS).exists():
            return "meta", folder
    raise WeightsError(f"{directory}: not a checkpoint, it has neither {CONFIG} nor {PARAMS}")


def read_plm(directory: Path) -> Checkpoint:
    """Open a directory in our own layout."""
    config = load_config(directory)
    tokenizer = Tokenizer.from_file(directory)
    require_tokenizer_fits(tokenizer, config)
    tensors = exactly(config, stored_tensors(directory), directory)
    params = read_original_params(directory)
    return Checkpoint(directory, "plm", config, tokenizer, tensors, original_params=params)


def write_plm(checkpoint: Checkpoint, directory: Path) -> list[str]:
    """Write a checkpoint in our own layout, tensor by tensor in their own dtypes."""
    save_companions(checkpoint.config, checkpoint.tokenizer, directory)
    write_original_params(checkpoint, directory)
    entries = {name: (tensor.dtype, tensor.shape) for name, tensor in checkpoint.tensors.items()}
    save_tensors(directory, entries, checkpoint.stream())
    return []


def write_checkpoint(checkpoint: Checkpoint, directory: str | Path, layout: Layout) -> list[str]:
    """Write a checkpoint in a layout; returns notes on what could not be kept. Not atomic: write to a fresh directory."""
    return {"plm": write_plm, "hf": write_hf, "meta": write_meta}[layout](checkpoint, Path(directory))
