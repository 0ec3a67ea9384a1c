"""PLM models in plain PyTorch, and everything that turns a record into their tensors.

    from plm_model import PLM, PLMConfig, Tokenizer, Codec, load_model, generate

The names are loaded when first used: importing the package imports no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

EXPORTS = {
    "PLM": "plm_model.families.plm.model",
    "PLMConfig": "plm_model.families.plm.settings",
    "Tokenizer": "plm_model.families.plm.tokenizer",
    "Codec": "plm_model.families.plm.codec",
    "load_model": "plm_model.families.plm.weights",
    "open_model": "plm_model.families.plm.layouts.detect",
    "generate": "plm_model.families.plm.generation",
}

__all__ = list(EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in EXPORTS:
        raise AttributeError(f"module 'plm_model' has no attribute {name!r}")
    value = getattr(importlib.import_module(EXPORTS[name]), name)
    globals()[name] = value
    return value
