"""The tensors of one or several `.safetensors` files, by name, each mapped from disk and read when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from plm_model.model_directory.files import open_tensors, tensor_files
from plm_model.model_directory.opened import StoredTensor
from plm_model.model_directory.safetensors_writer import DTYPE_NAMES, WeightsError

DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}


def stored_tensors(directory: Path) -> dict[str, StoredTensor]:
    """Every tensor of `model.safetensors`, or of the files of `model.safetensors.index.json`, under its own name."""
    files = tensor_files(directory)
    found = {}
    for file in sorted(set(files.values())):
        source = open_tensors(directory / file)
        for key in (key for key in files if files[key] == file):
            found[key] = stored_tensor(source, directory / file, key)
    return found


def stored_tensor(source: Any, file: Path, key: str) -> StoredTensor:
    header = source.get_slice(key)
    kind = header.get_dtype()
    if kind not in DTYPES:
        raise WeightsError(f"{file}: tensor {key} is stored as {kind}, which is not supported")
    read: Callable[[], torch.Tensor] = partial(source.get_tensor, key)
    return StoredTensor(file, key, DTYPES[kind], tuple(header.get_shape()), read)
