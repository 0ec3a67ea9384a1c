"""Training settings from YAML without pydantic, for machines that have torch and little else. As strict as the config."""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from components.errors import ConfigError
from components.layers import Layer, lay_over, read_file
from components.train.settings import TrainConfig


def read_settings(uri: str, overrides: Sequence[str] = ()) -> TrainConfig:
    """The `train` section of a YAML file, with `train.key=value` laid over it. Raises ConfigError naming the key."""
    layer = read_file(uri)
    for override in overrides:
        dotted, equals, text = override.partition("=")
        if not equals or not dotted.startswith("train."):
            raise ConfigError(f"{override}: an override is train.KEY=VALUE")
        value: Any = yaml.safe_load(text)
        for name in reversed(dotted.split(".")[1:]):
            value = {name: value}
        lay_over(layer, "train", Layer({**value}), "train")
    try:
        settings: TrainConfig = build(TrainConfig, layer.values.get("train", {}), "train")
        return settings
    except ValueError as error:
        raise ConfigError(f"{uri}: {error}") from None


def build(kind: Any, value: Any, key: str) -> Any:
    """A value of YAML as the annotated type `kind`. Raises ValueError naming the key."""
    if is_dataclass(kind):
        return _section(kind, value, key)
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        return build(next(option for option in inner if option is not type(None)), value, key)
    if origin is Literal:
        return _require(value in inner, value, key, value)
    if origin is tuple:
        _require(isinstance(value, list | tuple), value, key, value)
        kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else list(inner)
        _require(len(kinds) == len(value), value, key, value)
        return tuple(build(kind, item, f"{key}[{n}]") for n, (kind, item) in enumerate(zip(kinds, value, strict=True)))
    if origin is dict:
        _require(isinstance(value, Mapping), value, key, value)
        return {name: build(inner[1], item, f"{key}.{name}") for name, item in value.items()}
    return _scalar(kind, value, key)


def _section(kind: Any, value: Any, key: str) -> Any:
    _require(isinstance(value, Mapping), value, key, value)
    hints, known = get_type_hints(kind), [field.name for field in fields(kind)]
    for name in value:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            raise ValueError(f"{key}.{name}: unknown key" + (f"; did you mean {near[0]}?" if near else ""))
    given = {name: build(hints[name], item, f"{key}.{name}") for name, item in value.items()}
    try:
        return kind(**given)
    except ValueError as error:  # of a class, which does not know the key that it stands under
        raise ValueError(f"{key}.{error}") from None


def _scalar(kind: Any, value: Any, key: str) -> Any:
    if kind is bool:
        return _require(isinstance(value, bool), value, key, value)
    if kind is str:
        return _require(isinstance(value, str), value, key, value)
    try:
        number = float(value)  # YAML reads 1e-3 as a string
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{key} is {value!r}; it must be a number") from None
    whole = math.isfinite(number) and number == int(number)
    _require(not isinstance(value, bool) and (kind is float or whole), value, key, value)
    return value if isinstance(value, kind) else kind(number)


def _require(holds: bool, value: Any, key: str, result: Any) -> Any:
    if not holds:
        raise ValueError(f"{key} cannot be {value!r}")
    return result
