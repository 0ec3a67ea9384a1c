"""Dataclasses of settings read from mappings, strictly: an unknown key or a wrong value is a ConfigError that names it."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from plm_model.parsing.bounds import check

T = TypeVar("T")


class ConfigError(ValueError):
    """A model setting that is unknown, of the wrong type or out of range; the message names the field."""


def parse(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Build the dataclass `cls` from a mapping, strictly; `where` is the dotted path used in messages."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where.rstrip('.') or 'model config'} must be a mapping, not {type(values).__name__}")
    types = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]  # its callers give dataclasses
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {where}{near[0]}?" if near else f"; known are {', '.join(known)}"
            raise ConfigError(f"unknown key {where}{key}{hint}")
    return cls(**{key: convert(types[key], value, f"{where}{key}") for key, value in values.items()})


def convert(kind: Any, value: Any, where: str) -> Any:
    """Check one value against its annotation (dataclass, number, string, bool, Literal, or one of them or None)."""
    options = typing.get_args(kind)
    if type(None) in options:
        return None if value is None else convert(options[0], value, where)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return value if isinstance(value, kind) else parse(kind, value, where + ".")
    if typing.get_origin(kind) is Literal:
        return value
    is_int = isinstance(value, int) and not isinstance(value, bool)
    if kind is float and (is_int or isinstance(value, float)):
        return float(value)
    if (kind is int and is_int) or (kind in (str, bool) and isinstance(value, kind)):
        return value
    raise ConfigError(f"{where} must be of type {kind.__name__}, not {value!r}")


def require_sane(config: Any) -> None:
    """ConfigError naming the first field of another type or out of its range."""
    check(config, title(config), ConfigError)


def require_multiple(config: Any, name: str, divisor: int, divisor_name: str) -> None:
    if getattr(config, name) % divisor:
        raise ConfigError(
            f"{title(config)}{name} is {getattr(config, name)}; it must be a multiple of {divisor_name} ({divisor})"
        )


def title(config: Any) -> str:
    """The section's name in messages, such as `vision.`: what its class says as SECTION, nothing for a whole config."""
    section: str = getattr(type(config), "SECTION", "")
    return section
