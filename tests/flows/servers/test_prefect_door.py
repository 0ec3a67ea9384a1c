"""Who may speak to the Prefect server of a state folder: its page, and what has the login. Pages of others may not."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest

from components.errors import UserError
from flows.servers.prefect_login import local_login, login_file
from flows.servers.prefect_server import PrefectServer
from tests.prefect_page import login_header, page_session

pytestmark = pytest.mark.case("R1")
EVIL = "http://evil.example"
MAKES_A_RUN = ("POST", "/flow_runs/", {"flow_id": "5c3f3b1e-0000-4000-8000-000000000000", "parameters": {}})


@pytest.fixture(scope="module")
def login(prefect_api: str) -> dict[str, str]:
    return login_header(os.environ["PREFECT_API_AUTH_STRING"])


@pytest.mark.parametrize("origin", [EVIL, "null", "http://127.0.0.1:1", None])
@pytest.mark.parametrize(
    ("method", "path", "body"), [MAKES_A_RUN, ("POST", "/deployments/filter", {}), ("GET", "/admin/settings", None)]
)
def test_a_page_without_the_login_is_not_answered(
    prefect_api: str, origin: str | None, method: str, path: str, body: Any
) -> None:
    headers = {"Origin": origin} if origin else {}
    for content_type in ("application/json", "text/plain"):  # the second needs no preflight
        asked = headers | {"Content-Type": content_type}
        answer = httpx.request(method, prefect_api + path, content=json.dumps(body), headers=asked)
        assert answer.status_code == 401 and answer.json() == {"exception_message": "Unauthorized"}
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:4200", "127.0.0.1:1", "127.0.0.1", "localhost.evil.example"]
)
@pytest.mark.parametrize("path", ["/api/flows/filter", "/", "/ui-settings", "/api/health"])
def test_a_foreign_host_is_refused_even_with_the_login(
    prefect_api: str, login: dict[str, str], host: str, path: str
) -> None:
    answer = httpx.post(prefect_api.removesuffix("/api") + path, json={}, headers={**login, "Host": host})
    assert answer.status_code == 400 and "PLM_PREFECT_HOSTS" in answer.text


def raw_status(api: str, path: str, *headers: tuple[str, str]) -> int:
    """Status of a GET with exactly these headers: clients of a higher level refuse to send some."""
    connection = HTTPConnection(httpx.URL(api).netloc.decode(), timeout=30)
    connection.putrequest("GET", path, skip_host=True)
    for name, value in headers:
        connection.putheader(name, value)
    connection.endheaders()
    return connection.getresponse().status


def test_two_hosts_are_refused(prefect_api: str, login: dict[str, str]) -> None:
    hosts = [("Host", httpx.URL(prefect_api).netloc.decode()), ("Host", "evil.example")]
    assert raw_status(prefect_api, "/api/admin/version", *hosts, *login.items()) == 400


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"])
def test_the_names_of_loopback_are_served(prefect_api: str, login: dict[str, str], name: str) -> None:
    host = f"{name}:{httpx.URL(prefect_api).port}"
    assert httpx.get(f"{prefect_api}/admin/version", headers={**login, "Host": host}).status_code == 200


@pytest.mark.parametrize("given", ["Basic", "Basic !", "Bearer x", "Basic cGxtOng=", "basic"])
def test_another_login_is_none(prefect_api: str, given: str) -> None:
    assert httpx.get(f"{prefect_api}/admin/version", headers={"Authorization": given}).status_code == 401


def test_probes_and_the_page_itself_need_no_login(prefect_api: str) -> None:
    assert httpx.get(f"{prefect_api}/health").json() is True
    settings = httpx.get(prefect_api.removesuffix("/api") + "/ui-settings").json()
    assert settings["auth"] == "BASIC" and settings["csrf_enabled"] is True and settings["api_url"] == prefect_api
    assert "<html" in httpx.get(prefect_api.removesuffix("/api") + "/v2/", headers={"Accept": "text/html"}).text


def test_only_our_page_may_read_answers(prefect_api: str) -> None:
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    other = httpx.options(f"{prefect_api}/flows/filter", headers={**asks, "Origin": EVIL})
    assert other.status_code == 400 and "access-control-allow-origin" not in other.headers
    own = f"http://localhost:{httpx.URL(prefect_api).port}"
    assert httpx.options(f"{prefect_api}/flows/filter", headers={**asks, "Origin": own}).status_code == 200
    refused = httpx.post(f"{prefect_api}/flows/filter", json={}, headers={"Origin": own})
    assert refused.status_code == 401 and refused.headers["access-control-allow-origin"] == own


def test_the_login_alone_changes_nothing_without_a_token_of_the_page(prefect_api: str, login: dict[str, str]) -> None:
    answer = httpx.post(f"{prefect_api}/flows/", json={"name": "x"}, headers={**login, "Origin": EVIL})
    assert answer.status_code == 403 and "CSRF" in answer.text


def test_the_page_works_once_somebody_has_logged_in(prefect_api: str) -> None:
    with contextlib.closing(page_session(prefect_api)) as page:
        assert page.post("flows/", json={"name": "door"}).status_code == 201
        assert "door" in [flow["name"] for flow in page.post("flows/filter", json={}).json()]


@pytest.mark.parametrize(
    ("host", "origin", "status"), [(None, None, 101), (None, EVIL, 403), ("evil.example", None, 403)]
)
def test_a_foreign_page_gets_no_websocket(prefect_api: str, host: str | None, origin: str | None, status: int) -> None:
    headers = {
        "Host": host or httpx.URL(prefect_api).netloc.decode(),
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Protocol": "prefect",
    }
    given = headers | ({"Origin": origin} if origin else {})
    assert raw_status(prefect_api, "/api/events/out", *given.items()) == status


def test_the_command_line_and_flows_still_work(prefect_api: str) -> None:
    """With the environment that the server's start left: login by PREFECT_API_AUTH_STRING, CSRF by Prefect's own client."""
    script = (
        "from prefect import flow\n"
        "from prefect.client.orchestration import get_client\n"
        "state = flow(lambda: 7, name='seven')(return_state=True)\n"
        "with get_client(sync_client=True) as client:\n"
        "    print(state.name, client.read_flow_run(state.state_details.flow_run_id).state_name)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)
    assert ran.stdout.split() == ["Completed", "Completed"], ran.stderr


def test_the_login_is_in_no_argument_and_no_log(prefect_api: str) -> None:
    import psutil

    password = os.environ["PREFECT_API_AUTH_STRING"].partition(":")[2]
    assert len(password) >= 40
    seen = [" ".join(p.cmdline()) for p in psutil.Process().children(recursive=True)]
    assert any("prefect_child.py" in line for line in seen) and password not in "".join(seen)
    state = Path(os.environ["PREFECT_HOME"]).parent
    logs = [path.read_text(errors="replace") for path in (state / "logs").iterdir()]
    assert logs and password not in "".join(logs)


def test_the_login_is_a_secret_of_the_user_and_the_same_at_every_start(tmp_path: Path) -> None:
    login = local_login(tmp_path)
    assert stat.S_IMODE(login_file(tmp_path).stat().st_mode) == 0o600
    assert local_login(tmp_path) == login != local_login(tmp_path / "other")


def test_starts_at_the_same_time_agree_on_one_login(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as starts:
        assert len(set(starts.map(local_login, [tmp_path] * 32))) == 1


@pytest.mark.parametrize("damage", ["readable", "empty", "half", "bytes"])
def test_a_login_that_is_no_secret_is_made_anew(tmp_path: Path, damage: str) -> None:
    login, path = local_login(tmp_path), login_file(tmp_path)
    if damage == "readable":
        path.chmod(0o644)
    else:
        path.write_bytes({"empty": b"", "half": login[:12].encode(), "bytes": b"\xff\x00"}[damage])
    again = local_login(tmp_path)
    assert again != login and len(again) == len(login) and stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_server_that_asks_for_another_login_is_one_line(
    prefect_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = PrefectServer(tmp_path)
    server.start()  # PREFECT_API_URL names it
    server.wait()
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "plm:other")
    with pytest.raises(UserError, match="asks for a login that PREFECT_API_AUTH_STRING does not hold") as error:
        server.wait()
    assert "\n" not in str(error.value) and str(login_file(tmp_path)) in str(error.value)
