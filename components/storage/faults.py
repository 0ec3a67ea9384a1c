"""What a store's refusals and silences mean: what may pass, what does not, and the words for each."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, HTTPClientError, NoCredentialsError
from s3fs.core import S3_RETRYABLE_ERRORS

from components.errors import StorageError
from components.storage.object_sums import damage_of

PASSING = {
    *("SlowDown", "Throttling", "ThrottlingException", "TooManyRequests", "TooManyRequestsException", "RequestTimeout"),
    *("InternalError", "ServiceUnavailable", "OperationAborted", "ConditionalRequestConflict", "IncompleteBody"),
    *("BadDigest", "XAmzContentSHA256Mismatch", "429"),
}
CURES = {
    "ExpiredToken": "the session token has expired; renew the credentials and run again",
    "TokenRefreshRequired": "the session token has expired; renew the credentials and run again",
    "InvalidToken": "the session token is not valid; renew the credentials and run again",
    "InvalidAccessKeyId": "the access key is not known there",
    "SignatureDoesNotMatch": "the secret key is wrong",
    "RequestTimeTooSkewed": "this machine's clock is wrong",
    "AccessDenied": "access denied",
    "403": "access denied, or the credentials have expired",
    "400": "bad request, as with credentials that have expired",
    "NoSuchBucket": "no such bucket",
    "PreconditionFailed": "changed while it was being read; run again",
}


class DamagedTransfer(Exception):
    """What came is not what the store has; the message says how."""


def code_of(error: BaseException) -> tuple[str, int]:
    """S3's error code and HTTP status behind an error of s3fs; empty and 0 where there was no answer."""
    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", "")), response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def passing(error: BaseException) -> bool:
    """Whether the same request may work a moment later."""
    code, status = code_of(error)
    if isinstance(error, NoCredentialsError):
        return False
    silent = (
        *S3_RETRYABLE_ERRORS,
        HTTPClientError,
        DamagedTransfer,
        TimeoutError,
        ConnectionError,
        asyncio.TimeoutError,
    )
    return code in PASSING or status >= 500 or isinstance(error, (*silent, FileNotFoundError))


def reason(error: BaseException, endpoint: str) -> str:
    """What happened, in a few words that name the endpoint and hold no secret."""
    code, status = code_of(error)
    if isinstance(error, FileNotFoundError):
        return f"is listed, but {endpoint} answers 404"
    if isinstance(error, NoCredentialsError):
        return "no credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
    if code or status:
        return f"{CURES.get(code) or f'{status} {code}'.strip()} (at {endpoint})"
    if isinstance(error, DamagedTransfer):
        return f"{error} (at {endpoint})"
    return f"no answer from {endpoint} ({type(error).__name__})"


def final(error: Exception, uri: str, said: str) -> Exception:
    """The error that is raised for what does not pass; what callers tell apart keeps its class."""
    code, status = code_of(error)
    if isinstance(error, FileExistsError):
        return error
    if code or status or isinstance(error, BotoCoreError):
        return StorageError(errno.EACCES if status in (400, 401, 403) else errno.EIO, f"{uri}: {said}")
    return error


def require_same(body: Any, answer: Mapping[str, Any]) -> None:
    """DamagedTransfer where the store says by its etag that it got other bytes than were sent."""
    if isinstance(body, bytes | bytearray | memoryview):
        data = bytes(body)
        etag = str(answer.get("ETag", "")).strip('"')
        if damage := damage_of(data, len(data), etag, {**answer, "ChecksumCRC32": None, "ChecksumSHA256": None}):
            raise DamagedTransfer(f"the store got other bytes: {damage}")
