"""The tensors of a model directory: written and read one at a time, refused when one is missing, extra or misshapen."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.distributed.tensor import DTensor

from plm_model.model_directory.finite import require_finite
from plm_model.model_directory.json_files import read_json, section
from plm_model.model_directory.safetensors_writer import (
    SHARD_BYTES,
    Entries,
    SafetensorsWriter,
    WeightsError,
    shard_files,
)
from plm_model.nn.tensors import local_slices, materialise

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def save_tensors(
    directory: str | Path,
    entries: Entries,
    tensors: Iterable[tuple[str, torch.Tensor]],
    max_shard_bytes: int = SHARD_BYTES,
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
        (directory / INDEX).write_text(json.dumps(index_of(files), indent=2) + "\n", encoding="utf-8")


def index_of(files: Mapping[str, Iterable[str]]) -> dict[str, Any]:
    """What the index says of files and the tensors in each."""
    return {"metadata": {}, "weight_map": {name: file for file, names in files.items() for name in names}}


def load_weights(
    model: nn.Module, directory: str | Path, device: torch.device | str = "cpu", added: Container[str] = ()
) -> None:
    """Fill a model from a model directory, converting to its dtypes; a model on `meta` is materialised on `device`.

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
