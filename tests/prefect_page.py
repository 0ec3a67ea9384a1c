"""What Prefect's page is to its server: the login, a CSRF token, and the parameters that an untouched form sends."""

from __future__ import annotations

import base64
import os
import uuid

import httpx


def login_header(login: str) -> dict[str, str]:
    """Basic authorization, as clients and the page send it."""
    return {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}


def page_session(api: str, login: str | None = None) -> httpx.Client:
    """A client with all that the page has once somebody has logged in; paths are below the API."""
    headers = login_header(login or os.environ["PREFECT_API_AUTH_STRING"])
    client = str(uuid.uuid4())
    answer = httpx.get(f"{api}/csrf-token", params={"client": client}, headers=headers, timeout=30).raise_for_status()
    headers |= {"Prefect-Csrf-Client": client, "Prefect-Csrf-Token": answer.json()["token"]}
    return httpx.Client(base_url=f"{api}/", headers=headers, timeout=30)
