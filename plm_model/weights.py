"""Checkpoint directories: written and read a tensor at a time, refused when one is missing, extra or of another shape.

A directory holds `config.json`, `tokenizer.json`, `processor_config.json` and `model.safetensors`, or several files of
tensors and `model.safetensors.index.json`. Memory stays near the model plus one tensor. Fresh weights depend on the seed and
a parameter's name only, not on device, order or sharding.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.distributed.tensor import DTensor

from plm_model.config import PLMConfig
from plm_model.finite import require_finite
from plm_model.json_files import read_json, section
from plm_model.plm import PLM
from plm_model.safetensors_writer import Entries, SafetensorsWriter, WeightsError, shard_files

if TYPE_CHECKING:
    from plm_model.tokenizer import Tokenizer

__all__ = ["SafetensorsWriter", "WeightsError", "build", "initialise", "load_model", "load_weights", "save_model"]

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
PROCESSOR = "processor_config.json"
MODEL_TYPE = "plm"
FORMAT = 1


# Building and fresh weights


def build(config: PLMConfig, device: torch.device | str = "meta") -> PLM:
    """The model on a device; on `meta` it has shapes and takes no memory. Its numbers are not usable yet."""
    with torch.device(device):
        return PLM(config)


def initialise(model: PLM, seed: int, device: torch.device | str = "cpu") -> PLM:
    """Give every parameter its starting value; a model on `meta` is materialised on `device` first. Shards stay shards."""
    materialise(model, device)
    for name, parameter in model.named_parameters():
        generator = torch.Generator().manual_seed(seed_of(seed, name))
        copy_into(parameter, initial(name, parameter.shape, model.config, generator))
    return model


def materialise(model: nn.Module, device: torch.device | str) -> None:
    """Allocate the parameters of a model that is still on `meta`."""
    if any(parameter.is_meta for parameter in model.parameters()):
        model.to_empty(device=device)


def seed_of(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:7], "big")


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


def copy_into(parameter: torch.Tensor, full: torch.Tensor) -> None:
    """Fill a parameter from its full value; of a sharded one, only the local shard is copied."""
    with torch.no_grad():
        if isinstance(parameter, DTensor):
            local = parameter.to_local()
            local.copy_(full[local_slices(parameter)].view_as(local))
        else:
            parameter.copy_(full)


def local_slices(parameter: DTensor) -> tuple[slice, ...]:
    """Where this rank's shard lies in the full tensor."""
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    shape, offset = compute_local_shape_and_global_offset(parameter.shape, parameter.device_mesh, parameter.placements)
    return tuple(slice(start, start + length) for start, length in zip(offset, shape, strict=True))


# Writing


def save_model(
    model: PLM | Mapping[str, torch.Tensor],
    config: PLMConfig,
    tokenizer: Tokenizer,
    directory: str | Path,
    max_shard_bytes: int = 5 * 10**9,
) -> None:
    """Write a checkpoint directory from a model or its full (unsharded) state dict, in the tensors' own dtypes."""
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
    model = {"model_type": MODEL_TYPE, "format": FORMAT, **config.to_dict()}
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


def save_tensors(
    directory: str | Path,
    entries: Entries,
    tensors: Iterable[tuple[str, torch.Tensor]],
    max_shard_bytes: int = 5 * 10**9,
) -> None:
    """Stream tensors, which come in the order of `entries`, into one file or into several with an index."""
    directory = Path(directory)
    files = shard_files(entries, max_shard_bytes, WEIGHTS)
    stream = iter(tensors)
    for file, part in files.items():
        with SafetensorsWriter(directory / file, part) as writer:
            for _ in part:
                writer.write(*next(stream))
    if len(files) > 1:
        index = {"metadata": {}, "weight_map": {name: file for file, part in files.items() for name in part}}
        (directory / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def entries_of(config: PLMConfig, dtype: torch.dtype) -> Entries:
    """Every tensor of a model's checkpoint, in order, with this dtype and its shape."""
    return {name: (dtype, tuple(p.shape)) for name, p in build(config).state_dict().items()}


# Reading


def load_model(
    directory: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[PLM, Tokenizer]:
    """The model, in evaluation mode, and the tokenizer of a checkpoint directory. WeightsError when it is not whole."""
    from plm_model.tokenizer import Tokenizer

    config = load_config(directory)
    model = build(config).to(dtype)
    materialise(model, device)
    load_weights(model, directory)
    return model.eval(), Tokenizer.from_file(Path(directory) / "tokenizer.json")


def load_config(directory: str | Path) -> PLMConfig:
    """The `config.json` of a checkpoint directory."""
    path = Path(directory) / CONFIG
    values = read_json(path)
    if values.pop("model_type", None) != MODEL_TYPE or values.pop("format", None) != FORMAT:
        raise WeightsError(f"{path}: not a model that this version reads (model_type {MODEL_TYPE!r}, format {FORMAT})")
    try:
        return PLMConfig.from_dict(values)
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from error


def load_weights(
    model: nn.Module, directory: str | Path, device: torch.device | str = "cpu", added: Container[str] = ()
) -> None:
    """Fill a model from a checkpoint directory, converting to its dtypes; a model on `meta` is materialised on `device`.

    `added` names parameters that the directory does not have, such as adapters: they are allocated only.
    Every tensor is checked before the first is copied: WeightsError names one that is missing, extra or of another shape.
    """
    directory = Path(directory)
    parameters = {name: tensor for name, tensor in model.state_dict().items() if name not in added}
    files = tensor_files(directory)
    require_same(parameters, files, directory)
    materialise(model, device)
    parameters = {name: tensor for name, tensor in model.state_dict().items() if name in files}
    for file in sorted(set(files.values())):
        with open_tensors(directory / file) as source:
            for name in (name for name in parameters if files[name] == file):
                copy_slice(parameters[name], source.get_slice(name), directory / file, name)


def copy_slice(parameter: torch.Tensor, stored: Any, file: Path, name: str) -> None:
    """Copy one stored tensor, or of a sharded parameter only this rank's part of it, from disk."""
    local, where = parameter, tuple(slice(0, size) for size in parameter.shape)
    if isinstance(parameter, DTensor):
        local, where = parameter.to_local(), local_slices(parameter)
    if local.numel():
        with torch.no_grad():
            local.copy_(require_finite(stored[where] if where else stored[...], file, name))


def tensor_files(directory: Path) -> dict[str, str]:
    """Name of every stored tensor and the file that holds it."""
    listed = section(read_json(directory / INDEX), "weight_map", f"{directory / INDEX}: ") if indexed(directory) else {}
    if wrong := [name for name, file in listed.items() if not isinstance(file, str)]:
        raise WeightsError(f"{directory / INDEX}: the file of tensor {wrong[0]} is no name")
    found: dict[str, str] = {}
    for file in sorted(set(listed.values())) or [WEIGHTS]:
        if Path(file).name != file:
            raise WeightsError(f"{directory / INDEX}: names the file {file}, outside of the directory")
        with open_tensors(directory / file) as source:
            found.update(dict.fromkeys(source.keys(), file))
    for name in listed.keys() - found.keys():
        raise WeightsError(f"{directory / INDEX}: tensor {name} is not in {listed[name]}")
    return found


def indexed(directory: Path) -> bool:
    """Whether the tensors lie in several files."""
    return (directory / INDEX).exists()


def require_same(parameters: Mapping[str, torch.Tensor], files: Mapping[str, str], directory: Path) -> None:
    """WeightsError unless the stored tensors are exactly the model's, in name and shape."""
    for name in sorted(parameters.keys() - files.keys()):
        raise WeightsError(f"{directory}: tensor {name} is missing")
    for name in sorted(files.keys() - parameters.keys()):
        raise WeightsError(f"{directory / files[name]}: tensor {name} is not part of the model")
    for file in sorted(set(files.values())):
        with open_tensors(directory / file) as source:
            names = source.keys()
            for name in names:
                stored, wanted = tuple(source.get_slice(name).get_shape()), tuple(parameters[name].shape)
                if stored != wanted:
                    raise WeightsError(f"{directory / file}: tensor {name} has shape {stored}, the model's is {wanted}")


def open_tensors(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: cannot read the tensors: {error}") from error
