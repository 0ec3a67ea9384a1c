"""The client of a storage root in S3: a request is tried again for a bounded time, and only verified bytes are given out.

Every request, its body included, goes through `_patiently`: what may pass (5xx, SlowDown, a broken or silent connection, a
short or changed body, 404 for a key that is listed) is tried again with growing pauses, for at most `Limits.attempts` times
and `Limits.total_seconds`, with a word on the way; an attempt that hangs ends after `read_seconds` of silence. By default a
store that never answers is given up after about 120 s. What remains is one line that names the URI and the endpoint.

Whole objects are compared with the length and the sums that the store keeps of them. For a range it keeps none: objects up to
WHOLE_BYTES are therefore fetched whole when they are opened, and ranges of larger ones are asked for until two answers agree.
"""

from __future__ import annotations

import asyncio
import errno
import io
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from botocore.exceptions import FlexibleChecksumError
from fsspec.asyn import sync
from s3fs.core import S3File, S3FileSystem

from components.errors import StorageError
from components.storage.faults import DamagedTransfer, final, passing, reason, require_same
from components.storage.object_sums import damage_of, damage_of_file

log = logging.getLogger(__name__)
T = TypeVar("T")
WHOLE_BYTES = 64 << 20
PART_BYTES = 16 << 20
PARALLEL_PARTS = 4
TRANSFERS = 3  # of a large object that arrives damaged
WORD_SECONDS = 10.0  # between two words about a store that does not answer well


@dataclass(frozen=True)
class Limits:
    """How long a request is tried. Seconds; an attempt itself may take `attempt_seconds` while bytes still come."""

    attempts: int = 10
    total_seconds: float = 120.0
    connect_seconds: float = 5.0
    read_seconds: float = 30.0
    attempt_seconds: float = 300.0
    first_pause: float = 0.2


LIMITS = Limits()
PROBE = Limits(attempts=3, total_seconds=15.0, read_seconds=10.0, attempt_seconds=15.0)  # whether a root can be used


class Answer(NamedTuple):
    """A GET: the headers, and the body where it was read."""

    headers: Mapping[str, Any]
    data: bytes | None

    @property
    def size(self) -> int:
        return int(self.headers["ContentLength"])

    @property
    def etag(self) -> str:
        return str(self.headers.get("ETag", "")).strip('"')


class StorageClient(S3FileSystem):
    """An fsspec file system over S3 with the guarantees above; endpoint, region and keys come from the environment."""

    retries = 1  # s3fs and botocore try once; `_patiently` tries again

    def __init__(self, limits: Limits = LIMITS, **options: Any) -> None:
        self.limits = limits
        config = {
            "connect_timeout": limits.connect_seconds,
            "read_timeout": limits.read_seconds,
            "retries": {"total_max_attempts": 1},
            "response_checksum_validation": "when_required",  # ours: botocore's takes a range for the whole
            "max_pool_connections": 32,
        }
        super().__init__(use_listings_cache=False, config_kwargs=config, **options)

    async def _call_s3(self, method: str, *arguments: Any, **kwargs: Any) -> Any:
        """Any request but the reading of a body, with patience."""

        async def once() -> Any:
            answer = await super(StorageClient, self)._call_s3(method, *arguments, **kwargs)
            if method in ("put_object", "upload_part"):
                require_same(kwargs.get("Body", b""), answer)
            return answer

        return await self._patiently(once, method, kwargs)

    async def _patiently(self, once: Callable[[], Awaitable[T]], method: str, kwargs: Mapping[str, Any]) -> T:
        """Call until it works, something final is said, or the limits are reached."""
        await self.set_session()
        uri, started = uri_of(kwargs), time.monotonic()
        for attempt in range(1, self.limits.attempts + 1):
            try:
                return await asyncio.wait_for(once(), self.limits.attempt_seconds)
            except Exception as error:
                if isinstance(error, FileExistsError) and attempt > 1 and await self._is_ours(kwargs):
                    return {}  # type: ignore[return-value]  # an earlier attempt arrived, only its answer did not
                if isinstance(error, FileNotFoundError) and not await self._listed(method, kwargs):
                    raise
                said = reason(error, self._endpoint())
                spent = time.monotonic() - started
                pause = min(self.limits.first_pause * 2 ** (attempt - 1), 15.0) * random.uniform(0.75, 1.25)
                if not passing(error) or isinstance(error, FileExistsError):
                    raise final(error, uri, said) from error
                if attempt == self.limits.attempts or spent + pause > self.limits.total_seconds:
                    tries = f"given up after {attempt} attempts in {spent:.0f} s"
                    raise StorageError(errno.EIO, f"{uri}: {said}; {tries}") from error
                self._say(f"{uri}: {said}; trying again for up to {self.limits.total_seconds - spent:.0f} s")
                await asyncio.sleep(pause)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _say(self, text: str) -> None:
        """A word on the way, not more often than every WORD_SECONDS."""
        now = time.monotonic()
        if now - getattr(self, "_last_word", -WORD_SECONDS) >= WORD_SECONDS:
            self._last_word = now
            log.warning("%s", text)

    def _endpoint(self) -> str:
        url = urlsplit(str(self._s3.meta.endpoint_url)) if self._s3 is not None else urlsplit("")
        return f"{url.scheme}://{url.netloc.rpartition('@')[2]}" if url.netloc else "S3"

    async def _listed(self, method: str, kwargs: Mapping[str, Any]) -> bool:
        """Whether a key that is said not to be there is in the listing all the same: an outage, not an absence."""
        if method not in ("get_object", "head_object"):
            return False
        try:
            page = await self._call_s3("list_objects_v2", Bucket=kwargs["Bucket"], Prefix=kwargs["Key"], MaxKeys=1)
        except FileNotFoundError:  # the bucket itself
            return False
        return any(entry["Key"] == kwargs["Key"] for entry in page.get("Contents", ()))

    async def _is_ours(self, kwargs: Mapping[str, Any]) -> bool:
        """Whether the object that stands in the way of an exclusive PUT is the one that was to be put."""
        body = kwargs.get("Body")
        if body is None:
            return False
        return (await self._get(kwargs["Bucket"], kwargs["Key"], len(body))).data == bytes(body)

    async def _get(
        self, bucket: str, key: str, limit: int | None = None, span: tuple[int, int] | None = None, **options: Any
    ) -> Answer:
        """One GET, whole or of `span` (start, stop), verified; without its body where that is longer than `limit`."""
        kwargs = {"Bucket": bucket, "Key": key, **self.req_kw, **options}
        kwargs |= {"ChecksumMode": "ENABLED"} if span is None else {"Range": f"bytes={span[0]}-{span[1] - 1}"}

        async def once() -> Answer:
            headers = await super(StorageClient, self)._call_s3("get_object", **kwargs)
            try:
                answer = Answer(headers, None)
                if limit is not None and answer.size > limit:
                    return answer
                data = await headers["Body"].read()
            except FlexibleChecksumError as error:  # botocore looks at some sums by itself
                raise DamagedTransfer(f"the answer is damaged: {error}") from None
            finally:
                headers["Body"].close()
            require_sound(data, answer, span)
            return answer._replace(data=data)

        return await self._patiently(once, "get_object", kwargs)

    async def _range(self, bucket: str, key: str, start: int, stop: int, size: int, **options: Any) -> bytes:
        """A range of an object of `size` bytes that two answers agree on.

        Every other answer is a byte longer at either end, so that what is wrong at one place of an answer does not agree.
        """
        if stop <= start:
            return b""
        wider = max(start - 1, 0), min(stop + 1, size)
        before: bytes | None = None
        for attempt in range(2 * self.limits.attempts):
            span = wider if attempt % 2 else (start, stop)
            data = (await self._get(bucket, key, span=span, **options)).data or b""
            wanted = data[start - span[0] : stop - span[0]]
            if wanted == before:
                return wanted
            before = wanted
        raise StorageError(errno.EIO, f"s3://{bucket}/{key}: no two answers to bytes {start} to {stop} agree")

    async def _cat_file(self, path: str, version_id: Any = None, start: Any = None, end: Any = None, **_: Any) -> bytes:
        bucket, key, _version = self.split_path(path)
        answer = await self._get(bucket, key, WHOLE_BYTES)
        if start is None and end is None:
            return answer.data if answer.data is not None else (await self._get(bucket, key)).data or b""
        if answer.data is not None:
            return answer.data[start:end]
        first, stop, _step = slice(start, end).indices(answer.size)
        return await self._range(bucket, key, first, stop, answer.size, IfMatch=f'"{answer.etag}"')

    async def _get_file(self, rpath: str, lpath: Any, *_: Any, **__: Any) -> None:
        """Fetch an object to a local file, which is whole and verified or not there."""
        if os.path.isdir(lpath):
            return
        bucket, key, _version = self.split_path(rpath)
        try:
            await self._fetch(bucket, key, Path(lpath))
        except BaseException:
            Path(lpath).unlink(missing_ok=True)
            raise

    async def _fetch(self, bucket: str, key: str, place: Path) -> None:
        damage: str | None = None
        for _ in range(TRANSFERS):
            answer = await self._get(bucket, key, PART_BYTES)
            if answer.data is not None:
                place.write_bytes(answer.data)
                return
            await self._fetch_parts(bucket, key, place, answer)
            damage = await asyncio.to_thread(damage_of_file, place, answer.size, answer.etag, answer.headers)
            if damage is None:
                return
        said = f"arrived damaged {TRANSFERS} times: {damage} (at {self._endpoint()})"
        raise StorageError(errno.EIO, f"s3://{bucket}/{key}: {said}")

    async def _fetch_parts(self, bucket: str, key: str, place: Path, answer: Answer) -> None:
        """The parts of a large object, all of one version, some at once; the first that fails ends the others."""
        slots = asyncio.Semaphore(PARALLEL_PARTS)

        async def fetch(start: int) -> None:
            async with slots:
                span = (start, min(start + PART_BYTES, answer.size))
                data = (await self._get(bucket, key, span=span, IfMatch=f'"{answer.etag}"')).data
                write_at(handle, data or b"", start)

        handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            async with asyncio.TaskGroup() as parts:
                for start in range(0, answer.size, PART_BYTES):
                    parts.create_task(fetch(start))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            os.close(handle)

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode != "rb":
            return super()._open(path, mode, **options)
        bucket, key, _version = self.split_path(path)
        if not key:
            raise IsADirectoryError(errno.EISDIR, "a bucket is no file", f"s3://{bucket}")
        whole = sync(self.loop, self._get, bucket, key, WHOLE_BYTES)
        if whole.data is not None:
            return io.BytesIO(whole.data)
        return AgreedFile(self, path, mode, cache_type="readahead", block_size=PART_BYTES)


class AgreedFile(S3File):
    """A large object for reading, range by range; each is of the version that was opened."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        options = {name: value for name, value in self.read_kw.items() if value is not None}
        data: bytes = sync(self.fs.loop, self.fs._range, self.bucket, self.key, start, end, self.size, **options)
        return data


def require_sound(data: bytes, answer: Answer, span: tuple[int, int] | None) -> None:
    """DamagedTransfer unless the body is as long as it says and was asked for, and sums up to what the store keeps."""
    wanted = answer.size if span is None else span[1] - span[0]
    if len(data) != wanted:
        raise DamagedTransfer(f"{len(data)} bytes came, {wanted} were expected")
    if span is None and (damage := damage_of(data, wanted, answer.etag, answer.headers)):
        raise DamagedTransfer(f"the answer is damaged: {damage}")


def uri_of(kwargs: Mapping[str, Any]) -> str:
    key = kwargs.get("Key") or kwargs.get("Prefix") or ""
    return f"s3://{kwargs.get('Bucket', '')}/{key}".rstrip("/")


def write_at(handle: int, data: bytes, offset: int) -> None:
    """Write all bytes at a place of an open file."""
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, offset)
        view, offset = view[written:], offset + written
