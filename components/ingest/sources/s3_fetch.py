"""Objects come to local files in parallel ranges; whatever a killed process had fetched is not fetched again.

For each object, named by the digest of its key and etag, a folder holds

    <name>          the whole object, verified
    <name>.partial  its bytes so far
    <name>.log      a line "start stop" for each range whose bytes are safely in .partial

Example: 20 MB in parts of 8 MB, killed in the second: the log says "0 8388608"; the next run asks for two ranges.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.errors import UserError
from components.ingest.sources.s3_listing import readable_refusals
from components.storage.object_sums import PLAIN_MD5, damage_of_file

TRANSFER_ATTEMPTS = 4  # of one range, when the connection breaks
OBJECT_ATTEMPTS = 2  # of a whole object, when it arrives damaged


@dataclass(eq=False)
class Download:
    """One object on its way to `folder`. `etag` is without quotes, `part_bytes` the size of a range."""

    bucket: str
    key: str
    size: int
    etag: str
    folder: Path
    part_bytes: int
    lock: threading.Lock = field(default_factory=threading.Lock)
    headers: Mapping[str, Any] = field(default_factory=dict)
    damage: str | None = None

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    @property
    def path(self) -> Path:
        return self.folder / hashlib.sha256(f"{self.key}\0{self.etag}".encode()).hexdigest()[:32]

    @property
    def partial(self) -> Path:
        return self.path.with_suffix(".partial")

    @property
    def log(self) -> Path:
        return self.path.with_suffix(".log")

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """All (start, stop); at least one, also of an empty object."""
        starts = range(0, max(self.size, 1), self.part_bytes)
        return [(start, min(start + self.part_bytes, self.size)) for start in starts]

    def missing(self) -> list[tuple[int, int]]:
        """The ranges that are not here yet."""
        if self.path.exists():
            return []
        there = self._logged()
        return [part for part in self.ranges if part not in there]

    def keep(self, start: int, data: bytes) -> None:
        """Put a range in its place, and only then into the log."""
        handle = os.open(self.partial, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _write_at(handle, data, start)
            os.fdatasync(handle)
        finally:
            os.close(handle)
        with self.lock, open(self.log, "a") as log:
            log.write(f"{start} {start + len(data)}\n")

    def discard(self) -> None:
        self.partial.unlink(missing_ok=True)
        self.log.unlink(missing_ok=True)

    def _logged(self) -> set[tuple[int, int]]:
        if not self.partial.exists() or not self.log.exists():
            return set()
        lines = self.log.read_text().split("\n")[:-1]  # a line without its end was cut off by the kill
        return {(int(start), int(stop)) for start, stop in (line.split() for line in lines)}


def fetch_objects(client: Any, downloads: Sequence[Download], parallel: int, report: Callable[[int], None]) -> None:
    """Bring every object to its `path`, verified; `report` gets the bytes of each range that was transferred.

    Raises UserError naming the object that stays damaged, changes on the way or cannot be read.
    """
    waiting = list(downloads)
    for _ in range(OBJECT_ATTEMPTS):
        _fetch_missing(client, waiting, parallel, report)
        waiting = [download for download in waiting if not download.path.exists()]
        if not waiting:
            return
    first = waiting[0]
    raise UserError(f"{first.uri}: arrived damaged {OBJECT_ATTEMPTS} times: {first.damage}")


def _fetch_missing(client: Any, downloads: Sequence[Download], parallel: int, report: Callable[[int], None]) -> None:
    jobs = [(download, part) for download in downloads for part in download.missing() or (None,)]
    pool = ThreadPoolExecutor(parallel)
    try:
        for done in as_completed([pool.submit(_fetch_range, client, download, part) for download, part in jobs]):
            report(done.result())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _fetch_range(client: Any, download: Download, part: tuple[int, int] | None) -> int:
    received = 0
    if part is not None:
        data = _get(client, download, part)
        download.keep(part[0], data)
        received = len(data)
    with download.lock:
        if not download.path.exists() and not download.missing():
            _finish(client, download)
    return received


def _get(client: Any, download: Download, part: tuple[int, int]) -> bytes:
    """The bytes of one range, tried again when the connection breaks; the etag must still be the listed one."""
    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError

    start, stop = part
    whole = len(download.ranges) == 1
    options = {} if whole else {"Range": f"bytes={start}-{stop - 1}"}
    for attempt in range(TRANSFER_ATTEMPTS):
        last = attempt == TRANSFER_ATTEMPTS - 1
        with readable_refusals(download.uri, client):
            try:
                answer = client.get_object(
                    Bucket=download.bucket, Key=download.key, IfMatch=f'"{download.etag}"', **options
                )
                data: bytes = answer["Body"].read()
                if len(data) == stop - start:
                    download.headers = answer if whole else {}
                    return data
            except ClientError as error:
                if last or error.response["ResponseMetadata"]["HTTPStatusCode"] < 500:
                    raise
            except BotoCoreError:
                if last:
                    raise
            except (HTTPError, ConnectionError):
                pass
        time.sleep(0.2 * 2**attempt)
    raise UserError(f"{download.uri}: bytes {start} to {stop} could not be read in {TRANSFER_ATTEMPTS} attempts")


def _finish(client: Any, download: Download) -> None:
    """Verify what is there; a sound object gets its name, a damaged one starts again from nothing."""
    headers = download.headers
    if not headers or not PLAIN_MD5.fullmatch(download.etag):
        with readable_refusals(download.uri, client):
            headers = client.head_object(Bucket=download.bucket, Key=download.key, ChecksumMode="ENABLED")
    download.damage = damage_of_file(download.partial, download.size, download.etag, headers)
    if download.damage:
        download.discard()
        return
    download.partial.rename(download.path)
    download.log.unlink()


def _write_at(handle: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, offset)
        view, offset = view[written:], offset + written
