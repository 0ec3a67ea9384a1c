"""Weights that are numbers: a model in which one is not answers `!!!!`, whatever it is asked."""

from __future__ import annotations

from pathlib import Path

import torch

from plm_model.model_directory.safetensors_writer import WeightsError


def require_finite(tensor: torch.Tensor, file: Path, name: str) -> torch.Tensor:
    """The same tensor; WeightsError naming it where a value is NaN or infinite."""
    if not is_finite(tensor):
        raise WeightsError(f"{file}: tensor {name} holds values that are not finite (NaN or infinity)")
    return tensor


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether every number of a tensor is finite. The sum tells in one pass, and almost always alone."""
    if not tensor.is_floating_point() or tensor.sum(dtype=torch.promote_types(tensor.dtype, torch.float32)).isfinite():
        return True
    return bool(tensor.isfinite().all())
