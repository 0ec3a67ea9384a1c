"""Answers that were given before, kept in files of one chunk each: whole or not there, whenever a process is killed.

The folder is that of one model's weights under one code; an answer is found by the digest of its question.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from components.artifacts.files import filesystem, write_bytes
from components.evaluate.answering.ask import Said

ENDING = ".answers.jsonl"


class KeptAnswers:
    """The answers below a URI; those of other processes are seen when it is opened."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._fs, self._path = filesystem(uri)
        self._known: dict[str, Said] = {}
        self._seconds: dict[str, float] = {}
        with ThreadPoolExecutor(8) as pool:
            for lines in pool.map(self._lines, self._files()):
                for key, (said, seconds) in lines.items():
                    self._known[key], self._seconds[key] = said, seconds

    def get(self, key: str) -> Said | None:
        """The answer to a question that was asked before."""
        return self._known.get(key)

    def seconds(self, key: str) -> float:
        """What the answer took when it was computed."""
        return self._seconds[key]

    def commit(self, answers: Mapping[str, Said], seconds: float) -> None:
        """Keep the answers of a chunk, all at once; each took so many seconds."""
        rows = [{"key": key, "seconds": seconds, **asdict(said)} for key, said in answers.items()]
        write_bytes(f"{self._uri}/{uuid.uuid4().hex}{ENDING}", "".join(json.dumps(row) + "\n" for row in rows).encode())
        self._known.update(answers)
        self._seconds.update(dict.fromkeys(answers, seconds))

    def _files(self) -> list[str]:
        try:
            found = self._fs.ls(self._path, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(path for path in map(str, found) if path.endswith(ENDING) and "/." not in path)

    def _lines(self, path: str) -> dict[str, tuple[Said, float]]:
        """The answers of one file; a line that is none, as a broken disk leaves it, is asked again."""
        found: dict[str, tuple[Said, float]] = {}
        for line in self._fs.cat_file(path).splitlines():
            try:
                row: Any = json.loads(line)
                said = Said(str(row["text"]), row["problem"], row["loss"], row["greedy"])
                found[row["key"]] = said, float(row["seconds"])
            except (ValueError, KeyError, TypeError):
                continue
        return found
