"""A local server that speaks as OpenAI does and answers through our client: tasks with a judge of their own are sent to it.

So they too get kept verdicts, repeated calls and the cap, without a change of their code, and none of them holds the key.
It listens on this machine only, and answers those who hold the token of this run.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import secrets
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from components.evaluate.judge.client import JudgeClient
from components.evaluate.judge.failures import JudgeUnavailable, Unanswered
from components.evaluate.judge.settings import ROUTE

LARGEST_REQUEST = 64_000_000  # bytes; questions hold images
PATIENCE_S = 60  # of a connection that sends nothing
POLL_S = 0.05  # how soon the server notices that it is to end


@dataclass(frozen=True)
class Counts:
    """What became of the requests: `calls` answered by the endpoint, `hits` by kept verdicts, `failures` not at all.

    Tasks go on after a failure and count it as they like, so where `failures` is not 0 their metrics are not to be trusted.
    `strangers` came without the token. `first_failure` says why in one line.
    """

    calls: int = 0
    hits: int = 0
    failures: int = 0
    strangers: int = 0
    first_failure: str | None = None


@dataclass
class Gateway:
    """A running gateway: `base_url` ends in /v1, `token` is its key, `model` the one that answers."""

    client: JudgeClient
    base_url: str = ""
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    _counts: Counts = Counts()
    _counting: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def model(self) -> str:
        return self.client.settings.model or ""

    @property
    def counts(self) -> Counts:
        return self._counts

    def knows(self, headers: Mapping[str, str]) -> bool:
        """Whether a request holds the token, as OpenAI's clients send it or as Azure's do."""
        sent = headers.get("Authorization", "").removeprefix("Bearer ") or headers.get("api-key", "")
        return hmac.compare_digest(sent.encode(), self.token.encode())

    def answer(self, body: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
        """HTTP status and body for a chat-completions request."""
        if not isinstance(body.get("messages"), list) or body.get("stream"):
            return self.failed(400, "a judge is asked by `messages`, and without `stream`")
        try:
            answer = self.client.ask(body)
        except JudgeUnavailable as error:
            return self.failed(403, str(error))
        except Unanswered as error:
            return self.failed(502, str(error))
        except Exception as error:  # whatever else it is, the task's connection must get an answer
            return self.failed(500, f"{type(error).__name__}: {error}")
        self.count(hits=int(answer.kept_before), calls=int(not answer.kept_before))
        return 200, answer.reply

    def failed(self, status: int, reason: str) -> tuple[int, Mapping[str, Any]]:
        self.count(failures=1, reason=reason)
        return status, error_body(status, reason)

    def count(self, reason: str | None = None, **more: int) -> None:
        with self._counting:
            now = self._counts
            added = {name: getattr(now, name) + number for name, number in more.items()}
            self._counts = replace(now, first_failure=now.first_failure or reason, **added)


@contextlib.contextmanager
def gateway(client: JudgeClient) -> Iterator[Gateway]:
    """Serve until the block ends. The client stays open: it is the caller's."""
    served = Gateway(client)
    server = _Server(("127.0.0.1", 0), partial(_Handler, served))
    served.base_url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(POLL_S,), name="judge-gateway", daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def error_body(status: int, reason: str) -> dict[str, Any]:
    """An error as OpenAI tells it."""
    return {"error": {"message": reason, "type": "judge_error", "param": None, "code": str(status)}}


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # a call that is under way does not hold up the end
    request_queue_size = 128  # connections that come at once

    def handle_error(self, *_: Any) -> None:
        """Nothing: only a connection that broke gets here, and who asked has gone."""


class _Handler(BaseHTTPRequestHandler):
    """One connection. Any path that ends in the route is taken: tasks add it to addresses of several forms."""

    protocol_version = "HTTP/1.1"
    timeout = PATIENCE_S

    def __init__(self, served: Gateway, *arguments: Any) -> None:
        self._gateway = served
        super().__init__(*arguments)

    def do_POST(self) -> None:
        data = self._body()
        if data is None:
            self._send(413, error_body(413, f"a request has a length, of at most {LARGEST_REQUEST} bytes"), last=True)
        elif not self._gateway.knows(self.headers):  # type: ignore[arg-type]  # a Message reads like a mapping
            self._gateway.count(strangers=1)
            self._send(401, error_body(401, "this gateway answers its own evaluation only"))
        elif not urlsplit(self.path).path.rstrip("/").endswith(ROUTE):
            self._send(*self._gateway.failed(404, f"the judge is asked at {ROUTE} only, not at {self.path[:100]}"))
        else:
            self._send(*self._answer(data))

    def log_message(self, *_: Any) -> None:
        """Nothing: the counts tell what happened."""

    def _body(self) -> bytes | None:
        """What was sent, read to its end so that the sender hears the answer; None without a length that is allowed."""
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or int(length[:20]) > LARGEST_REQUEST:
            return None
        return self.rfile.read(int(length))

    def _answer(self, data: bytes) -> tuple[int, Mapping[str, Any]]:
        try:
            body = json.loads(data)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            return self._gateway.failed(400, "a request is a JSON object")
        return self._gateway.answer(body)

    def _send(self, status: int, body: Mapping[str, Any], last: bool = False) -> None:
        data = json.dumps(body).encode()
        with contextlib.suppress(ConnectionError, TimeoutError):  # who asked may have gone
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("X-Should-Retry", "false")  # OpenAI's client would; ours has already tried again
            if last:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(data)
