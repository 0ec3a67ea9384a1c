"""The config's schema with every key optional and none preset: what a form sends for a key that nobody touched is nothing.

A form fills in a schema's defaults; laid over a file, they would replace what the file says.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, WithJsonSchema, create_model

from components.pipeline.config import PipelineConfig
from components.pipeline.config_loading import load_config
from components.reach import Reach
from components.settings import KeysOf

OLD_FORM = (
    "`config` is the path of a YAML file, and what differs from it goes into `overrides`: "
    """config="configs/demo.yaml", overrides={"train": {"steps": 5}}"""
)


def all_optional(kind: Any) -> type[BaseModel]:
    """For a pydantic model or a dataclass: a model with its keys, types and descriptions, each optional, none with a default.

    Sections become such models too. A list replaces the file's, so its items are whole.
    """
    keys: dict[str, Any] = {name: (kept, _no_default(name, kept, text)) for name, (kept, text) in _keys(kind).items()}
    return create_model(
        kind.__name__,
        __config__=ConfigDict(extra="forbid", protected_namespaces=()),
        __doc__=(kind.__doc__ or "").strip(),
        __module__=__name__,
        **keys,
    )


def _keys(kind: Any) -> dict[str, tuple[Any, str | None]]:
    """Key -> its optional type and description."""
    if is_dataclass(kind):
        hints = get_type_hints(kind, include_extras=True)
        described = TypeAdapter(kind).json_schema().get("properties", {})
        return {
            field.name: (_optional_type(hints[field.name]), described.get(field.name, {}).get("description"))
            for field in fields(kind)
        }
    return {
        name: (
            _optional_type(Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation),
            field.description,
        )
        for name, field in kind.model_fields.items()
    }


def _optional_type(annotation: Any) -> Any:
    """The type with sections made optional, wherever they stand in a union; constraints stay."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *metadata = get_args(annotation)
        for found in metadata:
            if isinstance(found, KeysOf):
                return found()
        return Annotated[(_optional_type(inner), *metadata)]
    if origin in (Union, types.UnionType):
        return Union[tuple(_optional_type(member) for member in get_args(annotation))]  # noqa: UP007
    section = isinstance(annotation, type) and (is_dataclass(annotation) or issubclass(annotation, BaseModel))
    return all_optional(annotation) if section else annotation


def _no_default(name: str, annotation: Any, description: str | None) -> Any:
    only = get_args(annotation) if get_origin(annotation) is Literal else ()

    def finish(schema: dict[str, Any]) -> None:
        schema.pop("default", None)
        if len(only) == 1:  # a form offers choices, not constants
            schema["enum"] = list(only)

    return Field(None, title=name, description=description, json_schema_extra=finish)


class Overrides(all_optional(PipelineConfig)):  # type: ignore[misc]  # is made when it is loaded
    """What is different from the file. What is left out stays as the file says."""


def _is_path(given: Any) -> Any:
    if isinstance(given, str):
        return given
    raise ValueError(OLD_FORM)


# A server that checks parameters against the schema says the first keyword that does not hold, with what stands below it.
_PATH_SCHEMA = {"not": {"type": "object", "description": OLD_FORM}, "type": "string"}
ConfigPath = Annotated[str, BeforeValidator(_is_path), WithJsonSchema(_PATH_SCHEMA)]


def config_of(
    path: str, overrides: BaseModel | Mapping[str, Any] | Sequence[str], reach: Reach | None = None
) -> PipelineConfig:
    """The config of a YAML file with what was filled in laid over it: keys of `Overrides`, or a list of `key=value`.

    Raises ConfigError as `load_config` does.
    """
    return load_config(path, as_texts(overrides), reach)


def as_texts(overrides: BaseModel | Mapping[str, Any] | Sequence[str]) -> list[str]:
    """What was filled in as `key=value` texts, one for each section that has something in it."""
    if isinstance(overrides, BaseModel):
        overrides = overrides.model_dump(mode="json", exclude_unset=True)
    if not isinstance(overrides, Mapping):
        return list(overrides)
    return [f"{key}={_flow_yaml(value)}" for key, value in _without_empty(overrides).items()]


def _without_empty(values: Mapping[str, Any]) -> dict[str, Any]:
    """Sections that were opened and left empty say nothing."""
    kept = {key: _without_empty(value) if isinstance(value, Mapping) else value for key, value in values.items()}
    return {key: value for key, value in kept.items() if value != {}}


def _flow_yaml(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), allow_unicode=True)
    said: str = text.removesuffix("\n...\n").strip()
    return said
