"""Model directories: written and read a tensor at a time, refused when one is missing, extra or of another shape.

A directory holds `config.json`, `tokenizer.json`, `processor_config.json` and `model.safetensors`, or several files of
tensors and `model.safetensors.index.json`. Memory stays near the model plus one tensor. Fresh weights depend on the seed and
a parameter's name only, not on device, order or sharding.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from plm_model.families.plm.model import PLM, build
from plm_model.families.plm.settings import PLMConfig
from plm_model.model_directory.description import CONFIG, described, description
from plm_model.model_directory.files import load_weights, save_tensors
from plm_model.model_directory.json_files import read_json
from plm_model.model_directory.opened import ModelDirectory
from plm_model.model_directory.safetensors_writer import SHARD_BYTES, SafetensorsWriter, WeightsError
from plm_model.nn.tensors import copy_into, materialise, seed_of

if TYPE_CHECKING:
    from plm_model.families.plm.tokenizer import Tokenizer

__all__ = ["SafetensorsWriter", "WeightsError", "build", "initialise", "load_model", "load_weights", "save_model"]

PROCESSOR = "processor_config.json"
MODEL_TYPE = "plm"


# Building and fresh weights


def initialise(model: PLM, seed: int, device: torch.device | str = "cpu") -> PLM:
    """Give every parameter its starting value; a model on `meta` is materialised on `device` first. Shards stay shards."""
    materialise(model, device)
    for name, parameter in model.named_parameters():
        generator = torch.Generator().manual_seed(seed_of(seed, name))
        copy_into(parameter, initial(name, parameter.shape, model.config, generator))
    return model


def initial(name: str, shape: torch.Size, config: PLMConfig, generator: torch.Generator) -> torch.Tensor:
    """The starting value of one parameter, fp32 on the CPU: the first rule of the table whose pattern ends its name."""
    dim, vision = config.decoder.dim, config.vision
    narrow = vision.width**-0.5
    branch = narrow * (2 * vision.layers) ** -0.5  # the sum of all branches keeps the stream's size
    rules: list[tuple[str, str, float]] = [
        (r"ls_[12]\.gamma", "constant", vision.layer_scale_init or 0.0),
        (r"vision_projector\.projector\.\d\.(weight|bias)", "normal", dim**-0.5),
        (r"(class|positional)_embedding", "normal", narrow),
        (r"conv1\.weight", "normal", (3 * vision.patch_size**2) ** -0.5),
        (r"attn\.in_proj_weight", "normal", narrow),
        (r"(attn\.out_proj|mlp\.c_proj)\.weight", "normal", branch),
        (r"mlp\.c_fc\.weight", "normal", (2 * vision.width) ** -0.5),
        (r"(norm|ln_pre|ln_\d)\.weight", "constant", 1.0),
        (r"bias", "constant", 0.0),
        (r"feed_forward\.w2\.weight", "normal", config.decoder.hidden_dim**-0.5),
        (r"weight", "normal", dim**-0.5),
    ]
    kind, value = next((kind, value) for pattern, kind, value in rules if re.search(pattern + "$", name))
    tensor = torch.full(shape, value, dtype=torch.float32)
    if kind == "normal":
        nn.init.trunc_normal_(tensor, std=value, a=-3 * value, b=3 * value, generator=generator)
    return tensor


# Writing


def save_model(
    model: PLM | Mapping[str, torch.Tensor],
    config: PLMConfig,
    tokenizer: Tokenizer,
    directory: str | Path,
    max_shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write a model directory from a model or its full (unsharded) state dict, in the tensors' own dtypes."""
    state = model.state_dict() if isinstance(model, nn.Module) else model
    sharded = [name for name, tensor in state.items() if isinstance(tensor, DTensor)]
    if sharded:
        raise WeightsError(f"{sharded[0]} is sharded over ranks; gather the state before saving it")
    directory = Path(directory)
    save_companions(config, tokenizer, directory)
    entries = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in state.items()}
    save_tensors(directory, entries, state.items(), max_shard_bytes)


def save_companions(config: PLMConfig, tokenizer: Tokenizer, directory: str | Path) -> None:
    """Write what stands beside the tensors: `config.json`, `processor_config.json` and `tokenizer.json`."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    model = description(MODEL_TYPE, config)
    vision = config.vision
    processor = {
        **model["processor"],
        "image_size": vision.image_size,
        "patch_size": vision.patch_size,
        "pooling_ratio": config.pooling_ratio,
        "max_seq_len": config.decoder.max_seq_len,
    }
    for name, content in ((CONFIG, model), (PROCESSOR, processor)):
        (directory / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    tokenizer.save(directory)


def shapes_of(config: PLMConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a model, by name and in its order."""
    return {name: tuple(tensor.shape) for name, tensor in build(config).state_dict().items()}


# Reading


def load_model(
    directory: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[PLM, Tokenizer]:
    """The model, in evaluation mode, and the tokenizer of a model directory. WeightsError when it is not whole."""
    from plm_model.families.plm.tokenizer import Tokenizer

    config = load_config(directory)
    model = build(config).to(dtype)
    materialise(model, device)
    load_weights(model, directory)
    return model.eval(), Tokenizer.from_file(Path(directory) / "tokenizer.json")


def load_config(directory: str | Path) -> PLMConfig:
    """The `config.json` of a model directory."""
    path = Path(directory) / CONFIG
    values = read_json(path)
    try:
        found = described(values)
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from error
    if not isinstance(found.architecture, PLMConfig):
        raise WeightsError(f"{path}: is a model of the family {found.family}, not {MODEL_TYPE}")
    return found.architecture


def load_into(model: PLM, opened: ModelDirectory, device: torch.device | str = "cpu") -> None:
    """Fill a model, converting to its dtypes; one on `meta` is materialised on `device`. Sharded parameters take their part."""
    materialise(model, device)
    parameters = model.state_dict()
    for name, tensor in opened.stream():
        copy_into(parameters[name], tensor)


def load(opened: ModelDirectory, device: torch.device | str, dtype: torch.dtype) -> PLM:
    """The model of an opened directory, in evaluation mode."""
    model = build(opened.config).to(dtype)
    load_into(model, opened, device)
    return model.eval()


def require_tokenizer_fits(tokenizer: Tokenizer, config: PLMConfig) -> None:
    """WeightsError when the tokenizer is not that of the model's vocabulary."""
    if tokenizer.vocab_size > config.decoder.vocab_size or tokenizer.image_id != config.image_token_id:
        raise WeightsError(
            f"{tokenizer.path}: the tokenizer has {tokenizer.vocab_size:,} entries and <|image|> is {tokenizer.image_id}; "
            f"the model has {config.decoder.vocab_size:,} and {config.image_token_id}: it belongs to another model"
        )
