"""An OpenAI-compatible endpoint on this machine that answers as it is told to: well, late, wrongly or not at all."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Seen:
    """A request that arrived."""

    path: str
    authorization: str | None
    body: Any


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    endpoint: JudgeEndpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        act = self.endpoint.next_act(Seen(self.path, self.headers["Authorization"], body))
        with contextlib.suppress(ConnectionError):
            act(self)

    def send(self, status: int, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


Act = Callable[[Handler], None]


@dataclass
class JudgeEndpoint:
    """What arrives is answered by one act after the other, then for ever by the last one."""

    acts: list[Act]
    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def next_act(self, request: Seen) -> Act:
        with self._lock:
            self.seen.append(request)
            return self.acts.pop(0) if len(self.acts) > 1 else self.acts[0]


@contextlib.contextmanager
def judge_endpoint(*acts: Act) -> Iterator[JudgeEndpoint]:
    """The endpoint, running."""
    endpoint = JudgeEndpoint(list(acts))
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Told", (Handler,), {"endpoint": endpoint}))
    server.daemon_threads = True
    endpoint.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()


def completion(text: str | None, finish_reason: str = "stop") -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    reply = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    return json.dumps(reply).encode()


def says(text: str | None, finish_reason: str = "stop") -> Act:
    return lambda handler: handler.send(200, completion(text, finish_reason))


def raw(data: bytes) -> Act:
    return lambda handler: handler.send(200, data)


def fails(status: int, message: str = "no", headers: Mapping[str, str] | None = None) -> Act:
    return lambda handler: handler.send(status, json.dumps({"error": {"message": message}}).encode(), headers)


def redirects(url: str) -> Act:
    return lambda handler: handler.send(307, b"", {"Location": url})


def stalls(seconds: float) -> Act:
    return lambda handler: time.sleep(seconds)


def drops(handler: Handler) -> None:
    handler.close_connection = True


def trickles(handler: Handler) -> None:
    """A byte every 50 ms, each of them in time, the whole never."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(1000):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)
