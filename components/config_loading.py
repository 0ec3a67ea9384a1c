"""Load a pipeline config from YAML and overrides; whatever is wrong becomes one readable line that names file and key."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import BaseModel, ValidationError
from typing_extensions import is_typeddict

from components.config import PipelineConfig
from components.config_layers import Layer, lay_over, read_file, read_layer
from components.errors import ConfigError

OVERRIDE = "override"
SHOWN = 80  # characters of a value that is refused


def load_config(path: str, overrides: Sequence[str] = ()) -> PipelineConfig:
    """Read a YAML file (path or fsspec URI), lay `key.sub=value` overrides over it and validate the whole.

    Raises ConfigError with one line for each problem: the file, the key, what is wrong and the nearest known key.
    """
    layer = read_file(path)
    for override in overrides:
        _apply_override(layer, override)
    return validated(layer, path)


def validated(layer: Layer, path: str) -> PipelineConfig:
    """Validate resolved values; `path` is named where no origin is known."""
    try:
        return PipelineConfig.model_validate(layer.values)
    except ValidationError as error:
        lines = [_explain(problem, layer, path) for problem in error.errors()]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None


def dump_config(config: PipelineConfig) -> str:
    """The resolved config as YAML; `load_config` reads it back to an equal config."""
    return yaml.safe_dump(config.model_dump(mode="json", exclude={"extends"}), sort_keys=False, allow_unicode=True)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mapping -> {dotted key: leaf value}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _apply_override(layer: Layer, override: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals or not dotted.strip("."):
        raise ConfigError(f"{override}: an override looks like train.lr=3e-4")
    try:
        value: Any = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"{override}: the value is not valid YAML") from None
    if dotted == "extends":
        raise ConfigError(
            f"{override}: `extends` is for files: name that file as CONFIG, or write a file that extends it"
        )
    keys = dotted.split(".")
    for key in reversed(keys):
        value = {key: value}
    top = read_layer(value, origin=OVERRIDE, folder=".")
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
        return f"{origin}: {dotted}: unknown key{_suggestion(location, layer)}"
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


def _suggestion(location: Sequence[str], layer: Layer) -> str:
    known = {dotted for dotted, _ in _known_keys(PipelineConfig)}
    prefix = "".join(f"{part}." for part in location[:-1])
    siblings = {key for key in known if key.startswith(prefix) and "." not in key[len(prefix) :]}
    siblings.discard(".".join(location))
    near = difflib.get_close_matches(".".join(location), sorted(siblings), 1, 0.5) or difflib.get_close_matches(
        location[-1], sorted({key.rsplit(".", 1)[-1] for key in known}), 1, 0.6
    )
    if not near:
        return f"; known here: {', '.join(sorted(key[len(prefix) :] for key in siblings))}" if siblings else ""
    full = (
        near[0] if "." in near[0] or near[0] in known else next(k for k in sorted(known) if k.endswith(f".{near[0]}"))
    )
    return f"; did you mean {full}?"


def _known_keys(kind: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key of a model or dataclass, sections included."""
    for name, annotation in _fields(kind):
        yield f"{prefix}{name}", annotation
        for member in _members(annotation):
            yield from _known_keys(member, f"{prefix}{name}.")


def _fields(kind: Any) -> list[tuple[str, Any]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [(name, field.annotation) for name, field in kind.model_fields.items()]
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return [(field.name, hints[field.name]) for field in dataclass_fields(kind)]
    if is_typeddict(kind):
        return list(kind.__annotations__.items())
    return []


def _members(annotation: Any) -> list[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _members(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [member for argument in get_args(annotation) for member in _members(argument)]
    if origin is Literal or not isinstance(annotation, type):
        return []
    sections = issubclass(annotation, BaseModel) or is_dataclass(annotation) or is_typeddict(annotation)
    return [annotation] if sections else []
