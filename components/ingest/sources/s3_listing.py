"""A bucket prefix as a listing, and every way in which S3 refuses as one readable line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from components.errors import UserError
from components.ingest.sources.origin import SourceFile

REFUSALS = {
    "NoSuchBucket": "no such bucket",
    "403": "access denied",
    "AccessDenied": "access denied",
    "InvalidAccessKeyId": "the access key is not known there",
    "SignatureDoesNotMatch": "the secret key is wrong",
    "ExpiredToken": "the session token has expired",
    "PreconditionFailed": "changed while it was being read; run again",
    "412": "changed while it was being read; run again",
    "NoSuchKey": "disappeared while it was being read; run again",
    "404": "disappeared while it was being read; run again",
}


def connect(uri: str, parallel: int) -> Any:
    """A boto3 client; endpoint, region and keys come from the environment or the AWS config.

    An endpoint that does not answer is given up within ten seconds.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    settings = Config(
        connect_timeout=4,
        read_timeout=30,
        retries={"total_max_attempts": 2, "mode": "standard"},
        max_pool_connections=max(parallel, 1),
        response_checksum_validation="when_required",  # ranges carry the whole object's; ours is checked at the end
    )
    try:
        return boto3.client("s3", config=settings)
    except (BotoCoreError, ValueError) as error:
        raise UserError(f"{uri}: S3 cannot be used: {_one_line(error)}") from None


def split_uri(uri: str) -> tuple[str, str]:
    """("bucket", "prefix/") of s3://bucket/prefix; the prefix is "" or ends in one slash."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket:
        raise UserError(f"ingest.source.uri: {uri!r} is not s3://bucket/prefix")
    prefix = prefix.rstrip("/")
    return bucket, f"{prefix}/" if prefix else ""


def list_objects(client: Any, uri: str) -> dict[str, SourceFile]:
    """Every object below a prefix, sorted by relative path; the version is the etag. UserError if there is none."""
    bucket, prefix = split_uri(uri)
    files: list[SourceFile] = []
    with readable_refusals(uri, client):
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            files.extend(
                SourceFile(entry["Key"][len(prefix) :], entry["Size"], entry["ETag"].strip('"'))
                for entry in page.get("Contents", ())
                if not entry["Key"].endswith("/")
            )
    if not files:
        raise UserError(f"{uri}: there are no objects below this prefix")
    return {file.path: file for file in sorted(files, key=lambda file: file.path)}


@contextlib.contextmanager
def readable_refusals(what: str, client: Any) -> Iterator[None]:
    """Turn boto's errors into a UserError that names `what` and the endpoint, and no secret."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        detail = error.response.get("Error", {})
        reason = REFUSALS.get(str(detail.get("Code")), f"{detail.get('Code')}: {_one_line(detail.get('Message'))}")
        raise UserError(f"{what}: {reason} (at {endpoint_of(client)})") from None
    except BotoCoreError as error:
        reason = "no credentials found" if "redential" in type(error).__name__ else "cannot be reached"
        raise UserError(f"{what}: {reason} at {endpoint_of(client)} ({type(error).__name__})") from None


def endpoint_of(client: Any) -> str:
    """The endpoint's URL without user name and password."""
    parts = urlsplit(client.meta.endpoint_url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:200]
