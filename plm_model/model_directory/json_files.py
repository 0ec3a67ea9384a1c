"""JSON that others wrote: an object, or one line that says what is wrong with the file. Never deeper or larger than we read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plm_model.model_directory.safetensors_writer import WeightsError
from plm_model.parsing.bounds import told

MOST_BYTES = 64 << 20  # an index of the largest models has a few MB


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object of a file. WeightsError naming the file when it cannot be read or holds something else."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise WeightsError(f"{path}: is larger than {MOST_BYTES >> 20} MB, so it is no description of a model")
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(f"{path}: cannot read it: {error.strerror or error}") from error
    except RecursionError as error:
        raise WeightsError(f"{path}: cannot read it: it is nested too deeply") from error
    except ValueError as error:
        raise error if isinstance(error, WeightsError) else WeightsError(f"{path}: cannot read it: {error}") from error
    if not isinstance(found, dict):
        raise WeightsError(f"{path}: must hold an object, not {kind_of(found)}")
    return found


def section(values: Mapping[str, Any], name: str, where: str = "") -> Mapping[str, Any]:
    """An object inside of one, empty where it is absent or null. WeightsError naming the key when it is something else."""
    found = values.get(name)
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise WeightsError(f"{where}{name} must be an object, not {kind_of(found)}")
    return found


def require_numbers(
    values: Mapping[str, Any], where: str, whole: tuple[str, ...], others: tuple[str, ...] = ()
) -> None:
    """WeightsError naming a key that is there and is not a positive (whole) number; of the `others`, null is none."""
    for name in (*whole, *others):
        if name not in values or (values[name] is None and name in others):
            continue
        value, kinds = values[name], (int,) if name in whole else (int, float)
        if not isinstance(value, kinds) or isinstance(value, bool) or not 0 < value < float("inf"):
            raise WeightsError(told(f"{where}{name}", value, f"a positive {'whole ' if name in whole else ''}number"))


def kind_of(value: Any) -> str:
    """What a JSON value is, in JSON's words."""
    words = {list: "a list", str: "a string", bool: "a truth value", type(None): "null"}
    return words.get(type(value), "a number")
