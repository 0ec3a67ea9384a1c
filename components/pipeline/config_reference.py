"""Every key of the config with its type, default and meaning, as the types themselves say it: `plm config`, and a page."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from components.base.settings import ModelConfig
from components.errors import ConfigError
from components.pipeline.config import PipelineConfig, RayConfig, StorageConfig
from components.pipeline.config_hints import sections_of, suggestion
from components.tracking.settings import TrackingConfig
from plm_model.family import FAMILIES, part

NO_STEP_READS = (StorageConfig, RayConfig, TrackingConfig)  # where things lie and run, not what they are
REQUIRED = "required"
PAGE = """\
# Keys of the config

Made by `plm config --page`; `plm config KEY` tells of one key or section. ○ marks what changes no result: where things lie
and run, how many at a time, how often something is said. Where a section has kinds, one of them is chosen by its `kind`. The
keys of `model.architecture` are those of the family `plm`; published weights bring their own values."""


@dataclass(frozen=True)
class Entry:
    """One key: its type, default and meaning in words, and whether another value may give another result."""

    key: str
    type: str
    default: str
    meaning: str
    effect: bool


def entries(kind: Any = PipelineConfig, prefix: str = "", effect: bool = True) -> Iterator[Entry]:
    """All keys of a section and of those in it, in the order of the types."""
    without: frozenset[str] = getattr(kind, "WITHOUT_EFFECT", frozenset())
    effect = effect and kind not in NO_STEP_READS
    for name, annotation, default, meaning in _fields(kind):
        if name == "kind":  # stands beside the section's name
            continue
        key, counts = f"{prefix}{name}", effect and name not in without
        sections = sections_of(annotation)
        if sections and default is not None:
            if type(None) in get_args(annotation):  # may be switched off
                yield Entry(key, "section or null", "{}", meaning, counts)
            for section in sections:
                where = f" ({_kind_of(section)})" if len(sections) > 1 else ""
                yield from entries(section, f"{key}{where}.", counts)
        else:
            yield Entry(key, _said(annotation), _shown(default), meaning, counts)
            for section in sections:
                yield from entries(section, f"{key}.", counts)
        if kind is ModelConfig and name == "architecture":
            for family in FAMILIES:
                yield from entries(part(family, "settings").Architecture, f"{key}.", counts)


def described(key: str) -> list[Entry]:
    """The entries of a key, or of a section. ConfigError with the nearest where there is none."""
    found = [entry for entry in entries() if _plain(entry.key) == key or _plain(entry.key).startswith(f"{key}.")]
    if not found:
        raise ConfigError(f"{key}: no such key{suggestion(PipelineConfig, key.split('.'), None)}")
    return found


def as_text(found: Iterable[Entry]) -> str:
    """Entries for a terminal: two lines each."""
    return "\n".join(
        f"{entry.key}: {entry.default}   # {entry.type}{'' if entry.effect else '; no other result'}\n    {entry.meaning}"
        for entry in found
    )


def as_page(found: Iterable[Entry]) -> str:
    """Entries as a page in Markdown, a table for each section of the config."""
    lines = [PAGE]
    section = ""
    for entry in found:
        if entry.key.split(".")[0] != section:
            section = entry.key.split(".")[0]
            lines += [f"\n## {section}\n", "| key | default | type | meaning |", "|---|---|---|---|"]
        mark = "" if entry.effect else " ○"
        cells = (f"`{entry.key}`{mark}", f"`{entry.default}`", entry.type, entry.meaning)
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _plain(key: str) -> str:
    return ".".join(part.split(" ")[0] for part in key.split("."))


def _fields(kind: Any) -> Iterator[tuple[str, Any, Any, str]]:
    """Name, annotation, default and meaning of each field."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            meaning = field.description or _inner_description(field)
            yield name, field.annotation, _default(field.get_default(call_default_factory=False)), meaning
        return
    hints = get_type_hints(kind)
    meanings = _attribute_meanings(kind)
    for each in fields(kind):
        factory = each.default_factory
        default = each.default if factory is MISSING else factory()
        yield each.name, hints[each.name], REQUIRED if default is MISSING else default, meanings.get(each.name, "")


def _inner_description(field: FieldInfo) -> str:
    return next(
        (found.description for found in field.metadata if isinstance(found, FieldInfo) and found.description), ""
    )


def _default(value: Any) -> Any:
    return REQUIRED if value is PydanticUndefined else value


@cache
def _attribute_meanings(kind: Any) -> dict[str, str]:
    properties = TypeAdapter(kind).json_schema().get("properties", {})
    return {name: said["description"] for name, said in properties.items() if said.get("description")}


def _kind_of(section: Any) -> str:
    return f"kind {section.model_fields['kind'].default}"


def _said(annotation: Any) -> str:
    """A type in a reader's words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _said(inner[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(_said(each) for each in inner)
    if origin in (tuple, list):
        return f"list of {_said(inner[0])}"
    if origin is dict or annotation is dict or _is_mapping(origin):
        return "mapping"
    names = {int: "whole number", float: "number", str: "text", bool: "true or false", types.NoneType: "null"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _is_mapping(origin: Any) -> bool:
    return isinstance(origin, type) and origin.__name__ == "Mapping"


def _shown(default: Any) -> str:
    if default == REQUIRED:
        return REQUIRED
    if default is None:
        return "null"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple | list):
        return f"[{', '.join(map(_shown, default))}]"
    return "{}" if isinstance(default, dict) and not default else f"{default}"
