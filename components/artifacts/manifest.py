"""What is recorded of an artifact, under a seal: a manifest is read as it was written, or counts as damaged.

The seal is a digest over everything else in the manifest, so that no number, link or config in it can change unnoticed.
Manifests of format 1, which earlier versions wrote, have none: what they stand for is made anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MANIFEST = "manifest.json"
MARK = "damaged.json"  # beside the manifest: files that a reader found damaged, to be looked at first next time
FORMAT = 2
SEAL = "seal"


@dataclass(frozen=True)
class Damage:
    """What is wrong with an artifact: the file, relative to the artifact (or its manifest), and how it differs."""

    file: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file} {self.reason}"


class BrokenManifest(ValueError):
    """A manifest that cannot be used; the message says why, as the end of a sentence about it."""


def sealed(content: Mapping[str, Any]) -> bytes:
    """A manifest's bytes."""
    plain = json.loads(json.dumps({"format": FORMAT, **content}, ensure_ascii=False))
    return json.dumps({**plain, SEAL: digest_of(plain)}, indent=1, ensure_ascii=False).encode()


def read_manifest(data: bytes) -> dict[str, Any]:
    """What `sealed` was given, with format and seal. Raises BrokenManifest for anything else."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise BrokenManifest("is no JSON") from None
    if not isinstance(found, dict):
        raise BrokenManifest("is no JSON object")
    if found.get("format") != FORMAT:
        raise BrokenManifest(f"is of format {str(found.get('format'))[:20]}; this version reads format {FORMAT}")
    if found.get(SEAL) != digest_of({name: value for name, value in found.items() if name != SEAL}):
        raise BrokenManifest("is not as it was written")
    return found


def digest_of(value: Any) -> str:
    """Hex sha256 of a JSON-able value, keys sorted."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def content_digest(files: Mapping[str, Mapping[str, Any]]) -> str:
    """Digest of an artifact's files, but for those set aside because they tell of times and places.

    32 of sha256's 64 hex characters, because MLflow keeps at most 36 of a data set's.
    """
    return digest_of({name: entry for name, entry in files.items() if not entry.get("aside")})[:32]
