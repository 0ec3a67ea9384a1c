"""Model directories: weights of a seed, and our own layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mean_colour.model import build
from mean_colour.settings import Architecture
from plm_model.family import RANDOM, Start, StartError
from plm_model.model_directory.description import architecture_of, described, description
from plm_model.model_directory.files import save_tensors
from plm_model.model_directory.json_files import read_json
from plm_model.model_directory.opened import ModelDirectory, StoredTensor, exactly
from plm_model.model_directory.safetensors_reader import stored_tensors
from plm_model.nn.tensors import seed_of

LAYOUTS = ("own",)
LICENCE = "Nobody has published weights of this kind.\n"


def shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in build(architecture).state_dict().items()}


def open_base(start: Start) -> ModelDirectory:
    if start.init != RANDOM:
        raise StartError("model.init: this family starts at random")
    architecture = architecture_of("mean_colour", start.architecture)
    tensors = {
        name: StoredTensor(Path("fresh"), name, torch.float32, shape, partial(fresh, name, shape, start.seed))
        for name, shape in shapes(architecture).items()
    }
    return ModelDirectory(Path("fresh"), "own", architecture, None, tensors)


def fresh(name: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed_of(seed, name))
    return torch.ones(shape) if name.endswith("norm.weight") else 0.2 * torch.randn(shape, generator=generator)


def write_companions(opened: ModelDirectory, directory: Path) -> None:
    (directory / "config.json").write_text(json.dumps(description("mean_colour", opened.config)))


def card(architecture: Architecture) -> dict[str, str]:
    return {"Decoder": f"{architecture.decoder.layers} layer"}


def assembled(init: str, tower: Path, architecture: Mapping[str, Any]) -> ModelDirectory:
    raise StartError("--tower: this family has none")


def read_directory(directory: Path) -> ModelDirectory:
    architecture = described(read_json(directory / "config.json")).architecture
    return ModelDirectory(
        directory, "own", architecture, None, exactly(shapes(architecture), stored_tensors(directory), directory)
    )


def write_directory(opened: ModelDirectory, directory: Path, layout: str, max_shard_bytes: int) -> list[str]:
    directory.mkdir(parents=True, exist_ok=True)
    write_companions(opened, directory)
    entries = {name: (tensor.dtype, tensor.shape) for name, tensor in opened.tensors.items()}
    save_tensors(directory, entries, opened.stream(), max_shard_bytes)
    return []
