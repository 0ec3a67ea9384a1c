"""What a run is called: the pipeline's name, and what differs from its last run, such as `mine lr=3e-4`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from components.artifacts.files import read_json, write_json
from components.artifacts.store import ArtifactStore
from components.pipeline.config import PipelineConfig
from components.pipeline.config_loading import flatten

ELSEWHERE = ("storage.", "tracking.", "ray.")  # where a run works and is recorded, not what it does
SHOWN_CHANGES, SHOWN_CHARACTERS = 3, 24


def name_of_run(config: PipelineConfig, store: ArtifactStore, refresh: frozenset[str]) -> str:
    """The name of the run that starts now; its settings are kept for the name of the next.

    `mine` for the first, `mine again` for one that is like the last, `mine steps=5 lr=3e-4 and 2 more` for others.
    """
    now = settings(config)
    last = read_json(_uri(config, store))
    write_json(_uri(config, store), now)
    if last is None:
        return config.name
    said = changes(last, now) + [f"refresh {step}" for step in sorted(refresh)]
    more = f" and {len(said) - SHOWN_CHANGES} more" if len(said) > SHOWN_CHANGES else ""
    return f"{config.name} {' '.join(said[:SHOWN_CHANGES]) or 'again'}{more}"


def settings(config: PipelineConfig) -> dict[str, Any]:
    """Dotted key -> value of all that determines what a run does."""
    flat = flatten(config.model_dump(mode="json", exclude={"name"}))
    return {key: value for key, value in flat.items() if not key.startswith(ELSEWHERE)}


def changes(last: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`key=value` for each setting that is another than it was; the key's last word where that is enough to know it."""
    changed = [key for key in now if key not in last or last[key] != now[key]]
    changed += [key for key in last if key not in now]
    leaves = [key.rpartition(".")[2] for key in changed]
    names = [leaf if leaves.count(leaf) == 1 else key for key, leaf in zip(changed, leaves, strict=True)]
    return [f"{name}={short(now.get(key))}" for key, name in zip(changed, names, strict=True)]


def short(value: Any) -> str:
    """A value in few characters: 0.0003 -> `3e-4`."""
    if isinstance(value, float):
        mantissa, _, exponent = f"{value:e}".partition("e")
        scientific = f"{float(mantissa):g}e{int(exponent)}"
        plain = f"{value:g}"
        return scientific if len(scientific) < len(plain) else plain
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


def _uri(config: PipelineConfig, store: ArtifactStore) -> str:
    return store.uri(config.name, "last", "settings.json")
