"""Tasks with a judge of their own get their answers from the gateway, strangers get none."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from components.evaluate.judge.gateway import Counts, Gateway, gateway
from components.evaluate.judge.settings import ROUTE
from components.evaluate.judge.variables import environment
from tests.components.evaluate.judge.conftest import KEY, MakeClient
from tests.judge_endpoint import JudgeEndpoint, completion, fails, judge_endpoint, says

BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "q"}], "temperature": 0}


@pytest.fixture
def endpoint() -> Iterator[JudgeEndpoint]:
    with judge_endpoint(says("yes")) as started:
        yield started


@pytest.fixture
def served(endpoint: JudgeEndpoint, make_client: MakeClient) -> Iterator[Gateway]:
    with make_client(endpoint.url) as client, gateway(client) as started:
        yield started


def post(served: Gateway, body: Any = BODY, path: str = ROUTE, **headers: str) -> httpx.Response:
    sent = headers or {"Authorization": f"Bearer {served.token}"}
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(served.base_url.removesuffix("/v1") + path, content=data, headers=sent, timeout=10, verify=False)


@pytest.mark.parametrize(
    "path",
    [ROUTE, f"/v1{ROUTE}", f"/v1{ROUTE}{ROUTE}", f"/openai/deployments/m{ROUTE}?api-version=2024-02-15-preview"],
)
def test_a_task_gets_the_model_s_answer_in_openai_s_words(served: Gateway, endpoint: JudgeEndpoint, path: str) -> None:
    answer = post(served, path=path)
    assert answer.status_code == 200 and answer.json() == json.loads(completion("yes"))
    (seen,) = endpoint.seen
    assert seen.body == {**BODY, "model": "m"} and seen.authorization == f"Bearer {KEY}"


def test_kept_verdicts_are_counted_apart(served: Gateway, endpoint: JudgeEndpoint) -> None:
    assert {post(served).json()["choices"][0]["message"]["content"] for _ in range(3)} == {"yes"}
    assert served.counts == Counts(calls=1, hits=2) and len(endpoint.seen) == 1


@pytest.mark.parametrize(
    "headers", [{"X-None": "1"}, {"Authorization": f"Bearer {KEY}"}, {"Authorization": "Bearer"}, {"api-key": "x"}]
)
def test_strangers_are_refused(served: Gateway, endpoint: JudgeEndpoint, headers: dict[str, str]) -> None:
    assert post(served, **headers).status_code == 401
    assert served.counts == Counts(strangers=1) and endpoint.seen == []


def test_azure_s_header_is_taken(served: Gateway) -> None:
    assert post(served, **{"api-key": served.token}).status_code == 200


@pytest.mark.parametrize(
    ("body", "path", "status"),
    [
        (b"{", ROUTE, 400),
        (b"[]", ROUTE, 400),
        (b"[" * 100_000, ROUTE, 400),
        ({"messages": "q"}, ROUTE, 400),
        ({**BODY, "stream": True}, ROUTE, 400),
        (BODY, "/v1/responses", 404),
    ],
)
def test_what_is_no_question_is_a_failure(served: Gateway, body: Any, path: str, status: int) -> None:
    answer = post(served, body, path)
    assert answer.status_code == status and answer.json()["error"]["message"] == served.counts.first_failure
    assert served.counts.failures == 1


@pytest.mark.parametrize("length", [None, "-1", "99999999999", "9" * 5000, "²"])
def test_a_request_without_an_allowed_length_is_refused(served: Gateway, length: str | None) -> None:
    connection = http.client.HTTPConnection(served.base_url.split("/")[2], timeout=10)
    connection.putrequest("POST", ROUTE)
    if length is not None:
        connection.putheader("Content-Length", length)
    connection.endheaders()
    assert connection.getresponse().status == 413


@pytest.mark.parametrize(
    ("acts", "options", "status", "told"),
    [
        ([fails(500)], {"retries": 0}, 502, "HTTP 500"),
        ([fails(401)], {}, 403, "set a valid key"),
        ([fails(500)], {"max_calls": 1}, 403, "max_calls=1 are used up; raise it"),
    ],
)
def test_a_failure_is_told_and_counted(
    make_client: MakeClient, acts: Any, options: dict[str, Any], status: int, told: str
) -> None:
    with judge_endpoint(*acts) as endpoint, gateway(make_client(endpoint.url, **options)) as served:
        answer = post(served)
    assert answer.status_code == status and told in answer.json()["error"]["message"] and KEY not in answer.text
    assert served.counts.failures == 1 and told in (served.counts.first_failure or "")


def test_many_ask_at_once(served: Gateway) -> None:
    with ThreadPoolExecutor(16) as pool:
        bodies = [{**BODY, "seed": number % 10} for number in range(60)]
        assert {answer.status_code for answer in pool.map(lambda body: post(served, body), bodies)} == {200}
    assert served.counts == Counts(calls=10, hits=50)


def test_nobody_listens_afterwards(served: Gateway, make_client: MakeClient, endpoint: JudgeEndpoint) -> None:
    with gateway(make_client(endpoint.url)) as other:
        assert post(other).status_code == 200
    with pytest.raises(httpx.ConnectError):
        post(other)
    assert other.token != served.token and other.token not in repr(other)


def test_the_variables_lead_to_the_gateway_and_hold_no_key(served: Gateway) -> None:
    found = environment(served, {"NO_PROXY": "intern", "OPENAI_API_KEY": KEY})
    assert found["OPENAI_API_URL"] == f"{served.base_url}/chat/completions"
    assert found["OPENAI_BASE_URL"] == served.base_url and found["API_TYPE"] == "openai"
    assert found["OPENAI_API_KEY"] == served.token and found["MODEL_VERSION"] == "m"
    assert found["NO_PROXY"] == "intern,127.0.0.1" and KEY not in found.values()


def test_openai_s_own_client_is_answered(served: Gateway) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=served.base_url, api_key=served.token)
    answer = client.chat.completions.create(model="gpt-4o", messages=BODY["messages"], temperature=0)
    assert answer.choices[0].message.content == "yes"
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=served.base_url, api_key="x").chat.completions.create(model="m", messages=[])


def test_openai_s_own_client_does_not_repeat_a_failure(make_client: MakeClient) -> None:
    openai = pytest.importorskip("openai")
    with judge_endpoint(fails(500)) as endpoint, gateway(make_client(endpoint.url, retries=0)) as served:
        client = openai.OpenAI(base_url=served.base_url, api_key=served.token)
        with pytest.raises(openai.InternalServerError, match="HTTP 500"):
            client.chat.completions.create(model="m", messages=BODY["messages"])
    assert len(endpoint.seen) == 1
