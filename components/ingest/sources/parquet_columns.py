"""What the columns of Parquet files mean: which hold bytes, which are names of classes, which are whole numbers."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.errors import UserError

MAX_WHOLE = 2**53  # up to here a float is exact as a whole number


@dataclass(frozen=True)
class Columns:
    """The columns of one file. `left_out` hold bytes; `classes` has the names of classes by column; `whole` are integers."""

    read: Sequence[str]
    left_out: Sequence[str]
    classes: Mapping[str, Sequence[str]]
    whole: frozenset[str]

    def clean(self, row: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """The row as JSON can hold it, and whether a NaN or infinity became none. ValueError for a label without a class."""
        clean, odd = {}, False
        for name, value in row.items():
            found = without_nan(value)
            odd = odd or found is not value
            if name in self.whole and isinstance(found, float):
                found = int(found)
            clean[name] = class_name(found, self.classes[name], name) if name in self.classes else found
        return clean, odd


def columns_of(schema: Any, image_column: str, file: str, whole: frozenset[str] = frozenset()) -> Columns:
    """The columns of a file by its Arrow schema. UserError when it lacks the images, or has a name twice."""
    names = schema.names
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(f"{file}: the column {twice[0]!r} stands twice; rename one of them")
    if image_column not in names:
        shown = ", ".join(map(repr, names))
        raise UserError(f"{file}: no column {image_column!r}; it has {shown}; ingest.image_column names it")
    left_out = [field.name for field in schema if field.name != image_column and holds_bytes(field.type)]
    return Columns([name for name in names if name not in left_out], left_out, classes_of(schema), whole)


def holds_bytes(kind: Any) -> bool:
    """Whether an Arrow type has bytes in it, at any depth."""
    import pyarrow.types as types

    if types.is_dictionary(kind):
        return holds_bytes(kind.value_type)
    inner = [kind.field(n).type for n in range(kind.num_fields)] if types.is_nested(kind) else []
    return "binary" in str(kind).partition("<")[0] or any(map(holds_bytes, inner))


def classes_of(schema: Any) -> dict[str, list[str]]:
    """Column -> names of its classes, as the Hugging Face `datasets` library keeps them in a file's schema."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        found = {name: class_names(feature) for name, feature in features.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return {name: names for name, names in found.items() if names}


def class_names(feature: Any) -> list[str]:
    """The names of a ClassLabel, or of a list of them; empty for any other feature."""
    while isinstance(feature, list | dict):
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
            names = feature.get("names")
            return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []
        feature = feature[0] if isinstance(feature, list) and feature else dict(feature or {}).get("feature")
    return []


def class_name(value: Any, names: Sequence[str], column: str) -> Any:
    """The name of a class for its number; -1 stands for none. ValueError for a number that no class has."""
    if isinstance(value, list):
        return [class_name(each, names, column) for each in value]
    if not isinstance(value, int) or value == -1:
        return None if value == -1 else value
    if not 0 <= value < len(names):
        raise ValueError(f"column {column!r} is {value}, but there are {len(names)} classes")
    return names[value]


def whole_in(table: Any) -> frozenset[str]:
    """The columns of floats of an open file in which every number is whole, as where pandas kept integers beside gaps."""
    import pyarrow.compute as pc
    import pyarrow.types as types

    floats = [field.name for field in table.schema_arrow if types.is_floating(field.type)]
    whole = set(floats)
    for group in range(table.num_row_groups if floats else 0):
        columns = table.read_row_group(group, columns=sorted(whole))
        for name in columns.column_names:
            values = pc.drop_null(columns[name].combine_chunks().cast("float64"))
            fits = pc.and_(pc.equal(values, pc.floor(values)), pc.less(pc.abs(values), float(MAX_WHOLE)))
            if not pc.all(pc.or_(fits, pc.is_nan(values)), min_count=0).as_py():
                whole.discard(name)
    return frozenset(whole)


def without_nan(value: Any) -> Any:
    """The same value, with None for each NaN and infinity; the very object where there are none."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        found = [without_nan(each) for each in value]
        return value if all(new is old for new, old in zip(found, value, strict=True)) else found
    if isinstance(value, dict):
        changed = {key: without_nan(each) for key, each in value.items()}
        return value if all(changed[key] is value[key] for key in value) else changed
    return value
