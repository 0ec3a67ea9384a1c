"""What of a step's settings its key counts: all but the fields that a class itself marks as without effect on the result.

A class marks them by name in `WITHOUT_EFFECT`, whether it is a pydantic model or a plain dataclass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any


def counted(settings: Any) -> Any:
    """Settings as JSON values, sections as objects, without what their classes mark as without effect."""
    if (names := _names(settings)) is not None:
        left_out: frozenset[str] = getattr(type(settings), "WITHOUT_EFFECT", frozenset())
        return {name: counted(getattr(settings, name)) for name in names if name not in left_out}
    if isinstance(settings, Mapping):
        return {name: counted(value) for name, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [counted(value) for value in settings]
    return settings


def _names(settings: Any) -> list[str] | None:
    """The fields of a settings object, None of anything else."""
    if is_dataclass(settings):
        return [field.name for field in fields(settings)]
    found = getattr(type(settings), "model_fields", None)
    return None if found is None else list(found)
