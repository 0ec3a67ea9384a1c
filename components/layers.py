"""YAML layers: `extends:` lays one mapping over a file, at any depth, and every value remembers where it came from."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from components.errors import ConfigError
from components.reach import Reach, reach_of_command

# Paths that name a file shipped beside the YAML that mentions it; every other path is taken from the current directory.
PATHS_BESIDE_THEIR_FILE = ("model.tokenizer", "ingest.source.catalogue")

INSTEAD = ("steps", "epochs")  # of train
MOST_CHARACTERS = 1 << 18
MOST_VALUES = 20_000


@dataclass
class Layer:
    """A nested mapping without `extends`, and for each dotted key the file (or `override`) that set it."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)


def read_file(uri: str, reach: Reach | None = None, stack: tuple[str, ...] = (), prefix: str = "") -> Layer:
    """Read a YAML file and the files that it extends.

    `reach` is what they may be; default: that of a file which somebody names on the command line.
    Raises ConfigError for a missing file, one out of reach, broken YAML, a file that is no mapping, or files that extend each
    other. It shows none of the file's lines.
    """
    if uri in stack:
        raise ConfigError(f"{uri}: files extend each other in a circle: {' -> '.join((*stack, uri))}")
    reach = reach or reach_of_command(uri)
    reach.check(uri, stack[-1] if stack else "config")
    text = _text(uri)
    try:
        _require_bounded(text, uri)
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{uri}:{mark.line + 1}" if mark else uri
        raise ConfigError(f"{where}: not valid YAML: {_problem(error)}") from None
    if values is None:
        values = {}
    if not isinstance(values, Mapping):
        raise ConfigError(f"{uri}: must hold a mapping of keys, not {type(values).__name__}")
    return read_layer(values, uri, _parent(uri), reach, (*stack, uri), prefix)


def read_layer(
    values: Mapping[str, Any], origin: str, folder: str, reach: Reach, stack: tuple[str, ...] = (), prefix: str = ""
) -> Layer:
    """Resolve every `extends:` in a mapping; paths in it are relative to `folder`."""
    layer = Layer()
    reach = reach.with_storage_of(values) if not prefix else reach
    if base := values.get("extends"):
        if not isinstance(base, str):
            raise ConfigError(f"{origin}: {prefix}extends: must name one YAML file")
        layer = read_file(_join(folder, base), reach, stack, prefix)
        layer.values = _given_way(layer.values, values)
    for key, value in values.items():
        if key == "extends":
            continue
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping):
            lay_over(layer, dotted, read_layer(value, origin, folder, reach, stack, f"{dotted}."), str(key))
            continue
        if dotted in PATHS_BESIDE_THEIR_FILE and isinstance(value, str):
            value = _join(folder, value)
            if reach.of_parameters and not stack:  # not written in a file, which is within reach itself
                reach.check(value, dotted)
        layer.values[str(key)] = value
        layer.origins[dotted] = origin
    return layer


def lay_over(layer: Layer, dotted: str, top: Layer, key: str) -> None:
    """Lay the mapping `top` over `layer.values[key]`; a mapping of another `kind` replaces instead of merging."""
    layer.origins.update(top.origins)
    layer.values[key] = merged(layer.values.get(key), top.values)
    layer.origins.setdefault(dotted, next(iter(top.origins.values()), ""))


def merged(base: Any, top: Mapping[str, Any]) -> dict[str, Any]:
    """`top` laid over `base`, mapping by mapping."""
    if not isinstance(base, Mapping) or top.get("kind", base.get("kind")) != base.get("kind"):
        return dict(top)
    result = _given_way(base, top)
    for key, value in top.items():
        result[key] = merged(result.get(key), value) if isinstance(value, Mapping) else value
    return result


def _given_way(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """`base` without what says the same as a key of `top` in another way: epochs over steps, and steps over epochs."""
    kept = dict(base)
    for one, other in (INSTEAD, INSTEAD[::-1]):
        if top.get(one) is not None and top.get(other) is None:
            kept.pop(other, None)
    return kept


def _require_bounded(text: str, uri: str) -> None:
    """ConfigError for YAML that is, or becomes by its anchors, larger than any config."""
    if len(text) > MOST_CHARACTERS:
        raise ConfigError(f"{uri}: has {len(text):,} characters, more than a config can have ({MOST_CHARACTERS:,})")
    sizes: dict[int, int] = {}

    def size(node: yaml.Node | None) -> int:
        """How many values a node is, written out; those that hold themselves are without end."""
        if not isinstance(node, yaml.CollectionNode):
            return 1
        if id(node) not in sizes:
            sizes[id(node)] = MOST_VALUES + 1  # until it is known: met again inside of itself, it has no end
            parts = (part for item in node.value for part in (item if isinstance(item, tuple) else (item,)))
            sizes[id(node)] = 1 + sum(map(size, parts))
        return sizes[id(node)]

    if size(yaml.compose(text, Loader=yaml.SafeLoader)) > MOST_VALUES:
        raise ConfigError(f"{uri}: its anchors make it more than {MOST_VALUES:,} values")


def _text(uri: str) -> str:
    try:
        if "://" in uri:
            import fsspec

            with fsspec.open(uri, "r") as file:
                text: str = file.read()
                return text
        return Path(uri).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{uri}: no such file") from None
    except IsADirectoryError:
        raise ConfigError(f"{uri}: is a folder; name a YAML file") from None
    except Exception as error:  # OSError, decoding, and whatever an object store's client raises
        raise ConfigError(f"{uri}: cannot be read: {' '.join(str(error).split())[:200]}") from None


def _problem(error: Exception) -> str:
    """What YAML says is wrong, without the words of the file: it may be one that the reader is not to see."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem:
        return re.sub(r"'([^']*)'", lambda quoted: quoted[0] if _is_sign(quoted[1]) else "'…'", error.problem)
    if isinstance(error, yaml.reader.ReaderError):
        return f"a character that YAML does not have, at position {error.position}"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return "a date, or a value that its tag does not fit"


def _is_sign(text: str) -> bool:
    """Whether YAML quotes a character, or a name of its own for a place, not words of the file."""
    return len(text) == 1 or text.startswith(("\\", "<"))


def _parent(uri: str) -> str:
    if "://" in uri:
        scheme, rest = uri.split("://", 1)
        return f"{scheme}://{PurePosixPath(rest).parent}"
    return str(Path(uri).parent)


def _join(folder: str, path: str) -> str:
    if "\0" in path:
        raise ConfigError(f"{path!r}: no file can have this name")
    path = os.path.expanduser(path)
    if "://" in path or Path(path).is_absolute():
        return path
    if "://" in folder:
        return f"{folder}/{path}"
    return str((Path(folder) / path).resolve())
