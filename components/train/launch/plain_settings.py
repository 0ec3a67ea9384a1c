"""Training settings from YAML without pydantic, for machines that have torch and little else. As strict as the config."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from components.errors import ConfigError
from components.layers import Layer, lay_over, read_file
from components.train.settings import TrainConfig
from plm_model.parsing.dataclass import parse


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
        return parse(TrainConfig, layer.values.get("train", {}), "train.")
    except ValueError as error:
        raise ConfigError(f"{uri}: {error}") from None
