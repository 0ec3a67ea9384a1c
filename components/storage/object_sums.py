"""What a store says of an object's bytes, and whether the bytes that came agree: size, SHA-256, CRC-32, MD5.

An etag is the MD5 of the bytes only where the object was put in one piece and is not encrypted with the user's own keys.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PLAIN_MD5 = re.compile(r"[0-9a-f]{32}")
STORED_SUMS = ("ChecksumSHA256", "ChecksumCRC32")
READ_BYTES = 1 << 20


def expected_sums(etag: str, headers: Mapping[str, Any]) -> dict[str, str]:
    """The sums to compare with, by name; none where the store tells nothing that can be worked out from the bytes.

    `headers` is the answer to a GET or a HEAD of the whole object, asked with ChecksumMode.
    """
    sums = {
        name: headers[name]
        for name in STORED_SUMS
        if headers.get(name) and "-" not in headers[name] and headers.get("ChecksumType") != "COMPOSITE"
    }
    own_key = headers.get("SSECustomerAlgorithm") or headers.get("ServerSideEncryption") not in (None, "AES256")
    if PLAIN_MD5.fullmatch(etag) and not own_key:
        sums["ETag"] = etag
    return sums


class RunningSums:
    """Sums over bytes as they come; only those that are wanted are worked out."""

    def __init__(self, expected: Mapping[str, str]) -> None:
        self._expected, self.size = expected, 0
        self._md5, self._sha, self._crc = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0

    def update(self, data: Any) -> None:
        self.size += len(data)
        if "ETag" in self._expected:
            self._md5.update(data)
        if "ChecksumSHA256" in self._expected:
            self._sha.update(data)
        if "ChecksumCRC32" in self._expected:
            self._crc = zlib.crc32(data, self._crc)

    def damage(self, size: int) -> str | None:
        """How the bytes so far differ from an object of `size` bytes, or None."""
        if self.size != size:
            return f"{self.size} bytes instead of {size}"
        found = {
            "ETag": self._md5.hexdigest(),
            "ChecksumSHA256": base64.b64encode(self._sha.digest()).decode(),
            "ChecksumCRC32": base64.b64encode(self._crc.to_bytes(4, "big")).decode(),
        }
        wrong = [name for name, value in self._expected.items() if found[name] != value]
        return f"{wrong[0]} is {found[wrong[0]]} instead of {self._expected[wrong[0]]}" if wrong else None


def damage_of(data: bytes, size: int, etag: str, headers: Mapping[str, Any]) -> str | None:
    """How bytes differ from the object that they are a copy of, or None."""
    sums = RunningSums(expected_sums(etag, headers))
    sums.update(data)
    return sums.damage(size)


def damage_of_file(path: Path, size: int, etag: str, headers: Mapping[str, Any]) -> str | None:
    """The same for a file of this disk."""
    if path.stat().st_size != size:
        return f"{path.stat().st_size} bytes instead of {size}"
    expected = expected_sums(etag, headers)
    sums = RunningSums(expected)
    with open(path, "rb") as file:
        while chunk := file.read(READ_BYTES):
            sums.update(chunk)
    return sums.damage(size)
