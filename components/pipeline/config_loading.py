"""Load a pipeline config from YAML and overrides; whatever is wrong becomes one readable line that names file and key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from pydantic import ValidationError

from components.errors import ConfigError
from components.layers import Layer, lay_over, read_file, read_layer
from components.pipeline.config import PipelineConfig
from components.pipeline.config_hints import keys_of_section, suggestion
from components.reach import Reach, reach_of_command

OVERRIDE = "override"
NO_SECTION = ("model_type", "dataclass_type", "dict_type", "model_attributes_type")  # what pydantic calls it
SHOWN = 80  # characters of a value that is refused


def load_config(path: str | None, overrides: Sequence[str] = (), reach: Reach | None = None) -> PipelineConfig:
    """Read a YAML file (path or fsspec URI; None: the defaults), lay `key.sub=value` overrides over it, validate the whole.

    `reach` is what both may draw on; default: that of a config which somebody names on the command line.
    Raises ConfigError with one line for each problem: the file, the key, what is wrong and the nearest known key.
    """
    reach = reach or reach_of_command(path or ".")
    layer = read_file(path, reach) if path else Layer({}, {})
    for override in overrides:
        _apply_override(layer, override, reach)
    return validated(layer, path or OVERRIDE)


def validated(layer: Layer, path: str) -> PipelineConfig:
    """Validate resolved values; `path` is named where no origin is known."""
    try:
        return PipelineConfig.model_validate(layer.values)
    except ValidationError as error:
        lines = [_explain(problem, layer, path) for problem in error.errors()]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None


def dump_config(config: PipelineConfig) -> str:
    """The resolved config as YAML; `load_config` reads it back to an equal config."""
    text: str = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return text


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mapping -> {dotted key: leaf value}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _apply_override(layer: Layer, override: str, reach: Reach) -> None:
    dotted, equals, text = override.partition("=")
    if not equals or not dotted.strip("."):
        raise ConfigError(f"{override}: an override looks like train.lr=3e-4")
    try:
        value: Any = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ConfigError(f"{override}: the value is not valid YAML") from None
    if dotted == "extends":
        raise ConfigError(
            f"{override}: `extends` is for files: name that file as CONFIG, or write a file that extends it"
        )
    keys = dotted.split(".")
    for key in reversed(keys):
        value = {key: value}
    top = read_layer(value, origin=OVERRIDE, folder=".", reach=reach)
    if not isinstance(value[keys[0]], Mapping):
        layer.values[keys[0]] = top.values[keys[0]]
        layer.origins.update(top.origins)
        return
    lay_over(layer, keys[0], Layer(top.values[keys[0]], top.origins), keys[0])


def _explain(problem: Mapping[str, Any], layer: Layer, path: str) -> str:
    location = _without_union_tags([str(part) for part in problem["loc"]], layer.values)
    dotted = ".".join(location) or "(top level)"
    origin = _origin(location, layer) or path
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{origin}: {dotted}: unknown key{suggestion(PipelineConfig, location, problem.get('input'))}"
    if problem["type"] in NO_SECTION and (keys := keys_of_section(PipelineConfig, dotted)):
        shown = _cut(repr(problem.get("input")))
        return f"{origin}: {dotted}: is a section, not a value (got {shown}); set a key of it, such as {dotted}.{keys[0]}=…"
    message = problem["msg"].removeprefix("Value error, ")
    if message[1:2].islower():  # a sentence of pydantic's, not one that begins with a name
        message = message[:1].lower() + message[1:]
    given = problem.get("input")
    secret = isinstance(given, str) and "://" in given
    shown = f" (got {_cut(repr(given))})" if isinstance(given, str | int | float | bool | None) and not secret else ""
    return f"{origin}: {dotted}: {message}{shown}"


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _without_union_tags(location: list[str], values: Any) -> list[str]:
    """Pydantic puts a union's tag into the location; drop parts that the user never wrote."""
    kept = []
    for i, part in enumerate(location):
        last = i == len(location) - 1
        if isinstance(values, Mapping) and part not in values and not last and values.get("kind") == part:
            continue
        kept.append(part)
        values = values.get(part) if isinstance(values, Mapping) else None
    return kept


def _origin(location: Sequence[str], layer: Layer) -> str | None:
    for end in range(len(location), 0, -1):
        if origin := layer.origins.get(".".join(location[:end])):
            return origin
    return None
