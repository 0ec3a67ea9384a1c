"""What Prefect's page is to its server: the login, a CSRF token, and the parameters that an untouched form sends."""

from __future__ import annotations

import base64
import os
import time
import uuid
from collections.abc import Mapping
from typing import Any

import httpx


def login_header(login: str) -> dict[str, str]:
    """Basic authorization, as clients and the page send it."""
    return {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}


class AskedAgain(httpx.HTTPTransport):
    """Asks again while the answer is 503, which is Prefect's for an SQLite that others write to; its own clients do, too."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        for _ in range(20):
            answer = super().handle_request(request)
            if answer.status_code != 503:
                break
            answer.close()
            time.sleep(0.5)
        return answer


def page_session(api: str, login: str | None = None) -> httpx.Client:
    """A client with all that the page has once somebody has logged in; paths are below the API."""
    headers = login_header(login or os.environ["PREFECT_API_AUTH_STRING"])
    page = httpx.Client(
        base_url=f"{api}/", headers=headers, timeout=30, transport=AskedAgain(verify=False)
    )  # of certificates: it is http
    client = str(uuid.uuid4())
    token = page.get("csrf-token", params={"client": client}).raise_for_status().json()["token"]
    page.headers.update({"Prefect-Csrf-Client": client, "Prefect-Csrf-Token": token})
    return page


def untouched_form(schema: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What the form of a deployment sends when nobody touches it.

    Each field of the schema that has a default and no value yet takes the default: those of the deployment's parameters, and
    those of every section below them that the form draws (of a union the option that fits the value, else the first).
    """
    return _drawn(schema, dict(schema), dict(parameters))


def _drawn(root: Mapping[str, Any], node: Mapping[str, Any], value: Any) -> Any:
    node = _resolved(root, node)
    if value is None and "default" in node:
        value = node["default"]
    options = [_resolved(root, option) for option in node.get("anyOf", ())]
    if options:
        fitting = [option for option in options if _fits(option, value)]
        return _drawn(root, (fitting or options)[0], value)
    if "properties" not in node:
        return value
    given = dict(value or {})
    drawn = {name: _drawn(root, key, given.get(name)) for name, key in node["properties"].items()}
    filled = given | {name: kept for name, kept in drawn.items() if kept is not None}
    return filled or value


def _fits(option: Mapping[str, Any], value: Any) -> bool:
    kinds = {"object": Mapping, "array": list, "string": str, "null": type(None)}
    return isinstance(value, kinds.get(option.get("type", ""), ()))


def _resolved(root: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    if reference := node.get("$ref"):
        _, container, name = reference.split("/")
        return {**root[container][name], **{key: value for key, value in node.items() if key != "$ref"}}
    return node
