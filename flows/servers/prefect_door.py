"""The door before Prefect's server: a foreign Host is refused, and the API answers nobody without the login.

Prefect answers every Host: a page whose name is pointed at 127.0.0.1 (DNS rebinding) would be the server's own page to the
browser. Its login is checked behind its other checks; here it comes first, so that a stranger learns nothing.

`python -m uvicorn --factory flows.servers.prefect_door:create_app`; it needs Prefect's package and nothing else of ours.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

HOSTS = "PLM_PREFECT_HOSTS"
OPEN = ("/health", "/ready")  # what probes ask, without a login
Send = Callable[[Any], Awaitable[None]]
Application = Callable[[Any, Any, Send], Awaitable[None]]


@dataclass(frozen=True)
class Refusal:
    """What a request gets that does not pass."""

    status: int
    message: str


class Door:
    """An ASGI application around Prefect's.

    hosts: values of Host that are served, such as `127.0.0.1:4200`.
    origins: pages that may read the answers, such as `http://127.0.0.1:4200`.
    login: `user:password`; None where the server has none.
    """

    def __init__(
        self, app: Application, hosts: Iterable[str], origins: Iterable[str], login: str | None, api: str = "/api"
    ) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)
        self._origins = frozenset(origins)
        self._login = login
        self._api = api

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        headers = _headers(scope)
        refusal = self._refusal(scope, headers)
        if refusal is None:
            return await self._app(scope, receive, send)
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008, "reason": refusal.message})
        return await self._answer(refusal, headers, send)

    def _refusal(self, scope: Mapping[str, Any], headers: Mapping[str, list[str]]) -> Refusal | None:
        if [host.lower() in self._hosts for host in headers.get("host", [])] != [True]:
            return Refusal(400, f"this Host is not served here; {HOSTS} names those that are")
        if scope["type"] == "websocket":  # its login is its first message; a page of another origin gets no further
            foreign = set(headers.get("origin", ())) - self._origins
            return Refusal(403, "a page of another origin") if foreign else None
        return None if self._may_pass(scope, headers) else Refusal(401, "Unauthorized")

    def _may_pass(self, scope: Mapping[str, Any], headers: Mapping[str, list[str]]) -> bool:
        path, method = scope["path"], scope["method"]
        if self._login is None or not (path == self._api or path.startswith(f"{self._api}/")):
            return True  # the page itself: the same files for everybody
        if method == "OPTIONS" or (method == "GET" and path.removeprefix(self._api) in OPEN):
            return True
        return [_is_login(given, self._login) for given in headers.get("authorization", [])] == [True]

    async def _answer(self, refusal: Refusal, headers: Mapping[str, list[str]], send: Send) -> None:
        body = json.dumps({"exception_message": refusal.message}).encode()
        answer = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        origin = headers.get("origin", [""])[0]
        if origin in self._origins:  # our page under its other name must see that it is to log in
            answer += [(b"access-control-allow-origin", origin.encode()), (b"vary", b"Origin")]
        await send({"type": "http.response.start", "status": refusal.status, "headers": answer})
        await send({"type": "http.response.body", "body": body})


def create_app() -> Door:
    """Prefect's application behind the door; settings are Prefect's own, and PLM_PREFECT_HOSTS (comma-separated)."""
    from prefect.server.api.server import create_app as create_prefect
    from prefect.settings import get_current_settings

    api = get_current_settings().server.api
    login = api.auth_string.get_secret_value() if api.auth_string else None
    hosts = [host.strip() for host in os.environ.get(HOSTS, "").split(",") if host.strip()]
    return Door(create_prefect(), hosts, api.cors_allowed_origins.split(","), login, api.base_path or "/api")


def loopback_hosts(port: int) -> list[str]:
    """The names of this machine's loopback interface, as a browser sends them."""
    return [f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")]


def _headers(scope: Mapping[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return found


def _is_login(header: str, login: str) -> bool:
    scheme, _, credentials = header.partition(" ")
    try:
        given = base64.b64decode(credentials, validate=True)
    except ValueError:
        return False
    return scheme.lower() == "basic" and hmac.compare_digest(given, login.encode())
