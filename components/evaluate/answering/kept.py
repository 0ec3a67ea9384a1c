"""Answers that were given before, kept in files of one chunk each: whole or not there, whenever a process is killed.

The folder is that of one model's weights under one code; an answer is found by the digest of its question.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from components.artifacts.files import filesystem, write_bytes
from components.evaluate.answering.ask import Said

ENDING = ".answers.jsonl"


class KeptAnswers:
    """The answers below a URI; those of other processes are seen when it is opened."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._fs, self._path = filesystem(uri)
        self._known: dict[str, Said] = {}
        with ThreadPoolExecutor(8) as pool:
            for lines in pool.map(self._lines, self._files()):
                self._known.update(lines)

    def get(self, key: str) -> Said | None:
        """The answer to a question that was asked before."""
        return self._known.get(key)

    def commit(self, answers: Mapping[str, Said]) -> None:
        """Keep the answers of a chunk, all at once."""
        self._known.update(answers)
        data = "".join(json.dumps({"key": key, **asdict(said)}) + "\n" for key, said in answers.items()).encode()
        name = f"{uuid.uuid4().hex}{ENDING}"
        if not isinstance(self._fs, LocalFileSystem):
            write_bytes(f"{self._uri}/{name}", data)
            return
        write_bytes(f"{self._path}/.{name}.partial", data)
        os.replace(f"{self._path}/.{name}.partial", f"{self._path}/{name}")

    def _files(self) -> list[str]:
        try:
            found = self._fs.ls(self._path, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(path for path in map(str, found) if path.endswith(ENDING) and "/." not in path)

    def _lines(self, path: str) -> dict[str, Said]:
        """The answers of one file; a line that is none, as a broken disk leaves it, is asked again."""
        found: dict[str, Said] = {}
        for line in self._fs.cat_file(path).splitlines():
            try:
                row: Any = json.loads(line)
                found[row["key"]] = Said(str(row["text"]), row["problem"], row.get("loss"), row.get("greedy"))
            except (ValueError, KeyError, TypeError):
                continue
        return found
