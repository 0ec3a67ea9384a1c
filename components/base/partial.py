"""A dataclass of settings as a type of which every key may be left out, so that a config can say only what it changes."""

from __future__ import annotations

import types
from dataclasses import fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict
from typing_extensions import TypedDict


def partial(kind: Any) -> Any:
    """For a dataclass, a TypedDict with its keys, none required and no other accepted; nested dataclasses likewise."""
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        keys = {field.name: partial(hints[field.name]) for field in fields(kind)}
        make: Any = TypedDict  # a type checker takes keys that stand in the code only
        made = make(kind.__name__, keys, total=False)
        made.__pydantic_config__ = ConfigDict(extra="forbid")
        return made
    if get_origin(kind) in (Union, types.UnionType):
        return Union[tuple(partial(member) for member in get_args(kind))]  # noqa: UP007
    return kind
