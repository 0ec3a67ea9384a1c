"""A model directory of any layout, opened: what the model is, and its tensors under our names, each read when it is asked for.

Nothing is held but headers and file mappings, so that reading all of it into a model costs the model and one tensor,
and exporting one costs a tensor at a time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from plm_model.model_directory.finite import require_finite
from plm_model.model_directory.safetensors_writer import WeightsError

COMPARED_ROWS = 4096


@dataclass(frozen=True)
class StoredTensor:
    """A tensor on disk: the file and its name there, its dtype, its shape, and how to read it."""

    file: Path
    key: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    read: Callable[[], torch.Tensor]


@dataclass(frozen=True)
class ModelDirectory:
    """One model directory. `tensors` has exactly the model's names, in the model's order.

    `config` is its family's architecture, `tokenizer` what its family opens beside the tensors, `layout` one of its family's.
    `notes` says what was assumed or passed over; `original_params` is a release's `params.json`, whole, when one is known.
    """

    directory: Path
    layout: str
    config: Any
    tokenizer: Any
    tensors: Mapping[str, StoredTensor]
    notes: tuple[str, ...] = ()
    original_params: Mapping[str, Any] | None = field(default=None, repr=False)

    def stream(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Every tensor once, in the model's order, in its own dtype. WeightsError naming one that is not all numbers."""
        for name, stored in self.tensors.items():
            yield name, require_finite(stored.read(), stored.file, stored.key)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of most of the model's numbers."""
        sizes: dict[torch.dtype, int] = {}
        for stored in self.tensors.values():
            sizes[stored.dtype] = sizes.get(stored.dtype, 0) + torch.Size(stored.shape).numel()
        return max(sizes, key=sizes.__getitem__)


def same_numbers(one: StoredTensor, other: StoredTensor) -> bool:
    """Whether two stored matrices hold the same numbers, whatever their dtypes. Reads both, some rows at a time."""
    if one.shape != other.shape or not one.shape:
        return False
    first, second = one.read(), other.read()
    pieces = zip(first.split(COMPARED_ROWS), second.split(COMPARED_ROWS), strict=True)
    return all(torch.equal(a.double(), b.double()) for a, b in pieces)


def exactly(
    wanted: Mapping[str, tuple[int, ...]],
    found: Mapping[str, StoredTensor],
    directory: Path,
    stored_name: Callable[[str], str] = lambda name: name,
    stored_shape: Callable[[str, tuple[int, ...]], tuple[int, ...]] = lambda name, shape: shape,
) -> dict[str, StoredTensor]:
    """The found tensors in the model's order; WeightsError names (as it is stored) one that is missing, extra or misshapen.

    `wanted` are the shapes of the model's tensors by name; `stored_name` and `stored_shape` say how one of ours is called and
    shaped in this layout.
    """
    for name in (name for name in wanted if name not in found):
        raise WeightsError(f"{directory}: tensor {stored_name(name)} is missing")
    for name in (name for name in found if name not in wanted):
        raise WeightsError(f"{found[name].file}: tensor {found[name].key} is not part of the model")
    for name, shape in wanted.items():
        stored, expected = found[name], stored_shape(name, shape)
        if stored.shape != expected:
            raise WeightsError(
                f"{stored.file}: tensor {stored.key} has shape {stored.shape}, the model's is {expected}"
            )
        if not stored.dtype.is_floating_point:
            kind = str(stored.dtype).removeprefix("torch.")
            raise WeightsError(
                f"{stored.file}: tensor {stored.key} is stored as {kind}: quantised weights are not read"
            )
    return {name: found[name] for name in wanted}


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
