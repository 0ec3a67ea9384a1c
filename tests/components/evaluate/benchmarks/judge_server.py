"""An OpenAI-compatible judge on loopback that answers by what stands in a question, and a picture at `/picture.png`."""

from __future__ import annotations

import contextlib
import io
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.components.evaluate.benchmarks.given import picture


@contextlib.contextmanager
def judge_server(replies: Mapping[str, str]) -> Iterator[str]:
    """Serves until the block ends; gives the URL. A question in which no key of `replies` stands is refused with status 400."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = io.BytesIO()
            picture().save(data, "PNG")
            self.give(200, data.getvalue(), "image/png")

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked = body["messages"][-1]["content"]
            found = [reply for key, reply in replies.items() if key in asked]
            choice = {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": found[0] if found else ""},
            }
            reply = {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice]}
            self.give(200 if found else 400, json.dumps(reply).encode(), "application/json")

        def give(self, status: int, data: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
