"""The `config.json` of a model directory: the family, the version of the format, and the architecture. Without torch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plm_model.family import FAMILIES, families, part
from plm_model.parsing.dataclass import ConfigError, parse

CONFIG = "config.json"
FORMAT = 1


@dataclass(frozen=True)
class Described:
    """A model by its family and its architecture, an object of the family's own dataclass."""

    family: str
    architecture: Any


def description(family: str, architecture: Any) -> dict[str, Any]:
    """What `config.json` holds."""
    return {"model_type": family, "format": FORMAT, **dataclasses.asdict(architecture)}


def described(values: Mapping[str, Any]) -> Described:
    """The model that the values of a `config.json` describe; ConfigError or UnknownFamily when it is none of ours."""
    family, version = values.get("model_type"), values.get("format")
    if version != FORMAT or not isinstance(family, str):
        raise ConfigError(
            f"not a model that this version reads (model_type {family!r}, format {version!r}; the format is {FORMAT})"
        )
    own = {name: value for name, value in values.items() if name not in ("model_type", "format")}
    return Described(family, architecture_of(family, own))


def architecture_of(family: str, values: Mapping[str, Any]) -> Any:
    """A family's architecture from the nested mapping of its fields; missing ones keep their defaults."""
    return parse(part(family, "settings").Architecture, values, "")


def family_at(directory: Path) -> str:
    """The family that opens a directory in any layout: the one that its `config.json` names, or the first, which says what is
    wrong with it."""
    try:
        kind = json.loads((directory / CONFIG).read_bytes()).get("model_type")
    except (OSError, ValueError, AttributeError, RecursionError):
        kind = None
    named = (name for name in families() if kind == name or kind in part(name, "settings").MODEL_TYPES)
    return next(iter(FAMILIES)) if kind is None else next(named, next(iter(FAMILIES)))
