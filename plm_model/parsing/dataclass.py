"""Dataclasses of settings read from mappings, strictly: an unknown key or a wrong value is a ConfigError that names it.

What a field may hold beside its type, each class checks itself when it is made (`plm_model.parsing.bounds`).
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from plm_model.parsing.bounds import WORDS, check, hints, told

T = TypeVar("T")


class ConfigError(ValueError):
    """A setting that is unknown, of the wrong type or out of range; the message names its key."""


def parse(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Build the dataclass `cls` from a mapping, strictly; `where` is what messages put before a field, such as `train.`."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where.rstrip('.') or 'model config'} must be a mapping, not {type(values).__name__}")
    known = hints(cls)  # type: ignore[arg-type]  # a class can be hashed
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {where}{near[0]}?" if near else f"; known are {', '.join(known)}"
            raise ConfigError(f"{where}{key}: unknown key{hint}")
    given = {key: convert(known[key], value, f"{where}{key}") for key, value in values.items()}
    try:
        return cls(**given)
    except ConfigError:
        raise
    except ValueError as error:  # of a class that does not know the key that it stands under
        raise ConfigError(f"{where}{error}") from None


def convert(kind: Any, value: Any, where: str) -> Any:
    """A value of JSON or YAML as its annotation says: a dataclass, a plain type, a tuple, a mapping, or one of them or None."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        return convert(next(one for one in inner if one is not type(None)), value, where)
    if dataclasses.is_dataclass(kind):
        return value if isinstance(value, kind) else parse(kind, value, f"{where}.")  # type: ignore[arg-type]  # it is a class
    if origin is Literal:
        return value
    if origin is tuple:
        return _tuple(inner, value, where)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(told(where, value, "a mapping"))
        return {name: convert(inner[1], item, f"{where}.{name}") for name, item in value.items()}
    if kind in (int, float):
        return _number(kind, value, where)
    if not isinstance(value, kind):
        raise ConfigError(told(where, value, WORDS[kind]))
    return value


def _tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    any_number = kinds[-1] is Ellipsis
    if not isinstance(value, list | tuple) or (not any_number and len(value) != len(kinds)):
        raise ConfigError(told(where, value, "a list" if any_number else f"a list of {len(kinds)}"))
    each = [kinds[0]] * len(value) if any_number else kinds
    return tuple(convert(one, item, f"{where}[{n}]") for n, (one, item) in enumerate(zip(each, value, strict=True)))


def _number(kind: type, value: Any, where: str) -> Any:
    """A number, where it has no need to be whole also as text: YAML reads 1e-3 as that. A whole one may be written as 3.0."""
    try:
        number = float(value)
        whole = math.isfinite(number) and number == int(number)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(told(where, value, WORDS[kind])) from None
    if isinstance(value, bool) or (kind is int and (not whole or isinstance(value, str))):
        raise ConfigError(told(where, value, WORDS[kind]))
    return value if isinstance(value, kind) else kind(number)


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
