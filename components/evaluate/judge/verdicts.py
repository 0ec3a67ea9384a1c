"""Answers of a judge by the content of the question, one file each: whole or absent, whoever writes or is killed.

A file appears under its name by a rename, so that threads, processes and machines share a directory without a lock.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.artifacts.files import write_json

FORMAT = 1  # of a file; another one is not read
WITHOUT_EFFECT = frozenset({"user", "metadata", "store", "stream", "stream_options"})  # fields of a request


def question_key(body: Mapping[str, Any]) -> str:
    """SHA-256 over a request: model, messages, temperature, max_tokens and whatever else may change the answer.

    The endpoint's address is no part of it: a model that moves to another port has said what it has said.
    """
    counted = {name: value for name, value in body.items() if name not in WITHOUT_EFFECT}
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Verdicts:
    """The kept answers below a local directory, which is made when the first one is kept."""

    directory: Path

    def find(self, key: str) -> dict[str, Any] | None:
        """The answer that was kept under a key; None where there is none that can be read."""
        try:
            found = json.loads(self._path(key).read_bytes())
        except (FileNotFoundError, ValueError, RecursionError):  # a machine that lost power can leave half a file
            return None
        sound = isinstance(found, dict) and found.get("format") == FORMAT and found.get("key") == key
        reply = found.get("reply") if sound else None
        return reply if isinstance(reply, dict) else None

    def keep(self, key: str, reply: Mapping[str, Any]) -> None:
        """Keep an answer. Of two that keep one at the same time, the later one's stays."""
        write_json(str(self._path(key)), {"format": FORMAT, "key": key, "reply": reply})

    def _path(self, key: str) -> Path:
        return self.directory / key[:2] / f"{key}.json"
