"""A real S3 endpoint (moto's server) on the loopback interface that counts its requests and can misbehave on demand."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass(frozen=True)
class Request:
    """One request as the server saw it. `key` is empty for listings; `range` is the header's value or None."""

    method: str
    bucket: str
    key: str
    range: str | None


@dataclass
class Fault:
    """What goes wrong with the next `times` requests for a key; `kind` is one of 500, 503, 404, expired, flip,
    short, reset, stall, lost_answer (of a request that was carried out), stale (a listing without the key).

    `key` is a whole key, `method` LIST for listings of a prefix that the key starts with; `ranged` asks for (no) Range header.
    """

    kind: str
    key: str
    times: int = 1
    method: str = "GET"
    ranged: bool | None = None

    def meets(self, request: Request) -> bool:
        listing = request.method == "GET" and not request.key
        method = "LIST" if listing else request.method
        wanted = self.ranged in (None, request.range is not None)
        return self.times > 0 and method == self.method and (listing or request.key == self.key) and wanted


class S3Endpoint:
    """A running server: `url`, `client()`, `bucket()` for a fresh bucket, and the log of requests."""

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        self._requests: list[Request] = []
        self.corrupt: dict[str, int] = {}  # key -> how many more answers come with one byte flipped
        self.delay_seconds = 0.0  # how long each GET of an object takes
        self.faults: list[Fault] = []
        self.stall_seconds = 2.0
        self._server = make_server("127.0.0.1", 0, self._serve, True, request_handler=MotoRequestHandler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to use this endpoint."""
        return {**CREDENTIALS, "AWS_ENDPOINT_URL": self.url}

    def client(self) -> Any:
        import boto3

        names = ("aws_access_key_id", "aws_secret_access_key", "region_name")
        return boto3.client("s3", endpoint_url=self.url, **dict(zip(names, CREDENTIALS.values(), strict=True)))

    def bucket(self) -> str:
        """The name of a new, empty bucket."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name)
        return name

    def requests(self, method: str = "GET", bucket: str | None = None) -> list[Request]:
        """Requests for objects (not listings) so far, in order."""
        with self._lock:
            return [r for r in self._requests if r.method == method and r.key and bucket in (None, r.bucket)]

    def forget(self) -> None:
        """Start counting anew."""
        with self._lock:
            self._requests.clear()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()

    def _serve(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        bucket, _, key = unquote(environ.get("PATH_INFO", "")).lstrip("/").partition("/")
        request = Request(environ["REQUEST_METHOD"], bucket, key, environ.get("HTTP_RANGE"))
        with self._lock:
            self._requests.append(request)
            spoil = request.method == "GET" and self.corrupt.get(key, 0) > 0
            if spoil:
                self.corrupt[key] -= 1
            fault = next((fault for fault in self.faults if fault.meets(request)), None)
            if fault:
                fault.times -= 1
        if request.method == "GET" and key:
            time.sleep(self.delay_seconds)
        if fault and fault.kind in REFUSALS:
            return _refuse(start_response, *REFUSALS[fault.kind])
        if fault and fault.kind == "stall":
            time.sleep(self.stall_seconds)
        if fault and fault.kind in ("short", "reset", "stale", "lost_answer"):
            return _spoilt(self._app, environ, start_response, fault)
        body = self._app(environ, start_response)
        return [_flip_first_byte(b"".join(body))] if spoil or (fault and fault.kind == "flip") else body


REFUSALS = {
    "500": ("500 Internal Server Error", "InternalError", "We encountered an internal error."),
    "503": ("503 Slow Down", "SlowDown", "Please reduce your request rate."),
    "404": ("404 Not Found", "NoSuchKey", "The specified key does not exist."),
    "expired": ("400 Bad Request", "ExpiredToken", "The provided token has expired."),
}


def _refuse(start_response: Callable[..., Any], status: str, code: str, text: str) -> list[bytes]:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{text}</Message></Error>".encode()
    start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]


def _spoilt(app: Any, environ: dict[str, Any], start_response: Callable[..., Any], fault: Fault) -> Iterable[bytes]:
    """The true answer, cut: shorter and saying so, broken off in the middle or before it, or a listing without the key."""
    said: list[Any] = []
    body = b"".join(app(environ, lambda *arguments: said.extend(arguments[:2])))
    length = len(body)
    if fault.kind == "short":
        body = body[:-1]
        length -= 1
    elif fault.kind == "stale":
        pattern = rb"<Contents>\s*<Key>[^<]*" + re.escape(fault.key.encode()) + rb"</Key>.*?</Contents>"
        body = re.sub(pattern, b"", body, flags=re.DOTALL)
        length = len(body)
    headers = [(name, value) for name, value in said[1] if name.lower() != "content-length"]
    start_response(said[0], [*headers, ("Content-Length", str(length))])
    if fault.kind in ("reset", "lost_answer"):
        yield body[: length // 2] if fault.kind == "reset" else b""
        with contextlib.suppress(OSError):  # the client may have gone already
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return
    yield body


def _flip_first_byte(body: bytes) -> bytes:
    return bytes([body[0] ^ 1]) + body[1:] if body else body


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[S3Endpoint]:
    """One endpoint for the session; boto3, s3fs and child processes find it through the environment."""
    endpoint = S3Endpoint()
    before = {name: os.environ.get(name) for name in endpoint.environment}
    os.environ.update(endpoint.environment)
    yield endpoint
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
    endpoint.close()
