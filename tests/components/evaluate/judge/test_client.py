"""A judge is asked no more often than needed, and never beyond its limits."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from components.errors import UserError
from components.evaluate.judge.client import IN_A_ROW, JudgeClient, Waits, adapted
from components.evaluate.judge.endpoint import LARGEST_REPLY, _asked_wait
from components.evaluate.judge.failures import JudgeUnavailable, Unanswered
from components.evaluate.judge.settings import JudgeConfig
from components.evaluate.judge.verdicts import Verdicts
from tests.components.evaluate.judge.conftest import KEY, MakeClient, client_of
from tests.judge_endpoint import Act, drops, fails, judge_endpoint, raw, redirects, says, stalls, trickles
from tests.ports import free_port

ASKS_ONCE = """
import sys
from pathlib import Path
from tests.components.evaluate.judge.conftest import client_of
print(client_of(Path(sys.argv[1]), sys.argv[2], max_calls=1).ask({"messages": [{"role": "user", "content": "q"}]}).text)
"""


def body(text: str = "q") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def test_a_question_is_asked_once_also_across_processes(make_client: MakeClient, tmp_path: Path) -> None:
    with judge_endpoint(says("yes")) as endpoint:
        client = make_client(endpoint.url)
        assert [client.ask(body()).kept_before for _ in range(3)] == [False, True, True]
        command = [sys.executable, "-c", ASKS_ONCE, str(tmp_path / "verdicts"), endpoint.url]
        assert subprocess.check_output(command, text=True).strip() == "yes"
    assert len(endpoint.seen) == client.calls == 1
    assert (endpoint.seen[0].path, endpoint.seen[0].authorization) == ("/v1/chat/completions", f"Bearer {KEY}")


def test_one_question_of_eight_threads_is_asked_once(make_client: MakeClient) -> None:
    with judge_endpoint(says("yes")) as endpoint, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(make_client(endpoint.url).ask, [body()] * 32))
    assert {answer.text for answer in answers} == {"yes"} and len(endpoint.seen) == 1


@pytest.mark.parametrize("act", [says("cut", "length"), says("", "stop"), says(None, "content_filter"), says("no")])
def test_an_answer_that_is_incomplete_or_not_accepted_is_not_kept(make_client: MakeClient, act: Act) -> None:
    with judge_endpoint(act) as endpoint:
        client = make_client(endpoint.url)
        for _ in range(2):
            assert not client.ask(body(), accept=lambda text: text == "yes").kept_before
    assert client.calls == 2


@pytest.mark.parametrize("act", [fails(500), fails(503), fails(408), drops, raw(b"<html>"), raw(b'{"choices": []}')])
def test_what_may_pass_is_tried_again(make_client: MakeClient, act: Act) -> None:
    with judge_endpoint(act, act, says("yes")) as endpoint:
        assert make_client(endpoint.url).ask(body()).text == "yes"
    assert len(endpoint.seen) == 3


def test_the_wait_that_the_endpoint_asks_for_is_kept(make_client: MakeClient) -> None:
    with judge_endpoint(fails(429, headers={"Retry-After": "0.2"}), says("yes")) as endpoint:
        started = time.monotonic()
        make_client(endpoint.url).ask(body())
        assert 0.2 <= time.monotonic() - started < 2


def test_an_endless_wait_is_not(make_client: MakeClient) -> None:
    with judge_endpoint(fails(429, headers={"Retry-After": "86400"}), says("yes")) as endpoint:
        started = time.monotonic()
        make_client(endpoint.url).ask(body())
        assert time.monotonic() - started < 3


def test_waits_grow_and_have_an_end() -> None:
    waits = Waits()
    assert 0.25 <= waits.after(0, None) <= 0.5 and 1 <= waits.after(2, None) <= 2 and waits.after(1000, None) <= 30
    assert waits.after(0, 7.0) == 7 and waits.after(0, float("inf")) == 60 and waits.after(0, float("nan")) <= 0.5


def test_a_date_to_wait_for_is_read() -> None:
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 55 < (_asked_wait(in_a_minute) or 0) <= 60
    assert _asked_wait("soon") is None and _asked_wait("-1") == 0


@pytest.mark.parametrize(
    ("act", "told"),
    [
        (fails(401), "set a valid key in OPENAI_API_KEY"),
        (fails(403), "set a valid key in OPENAI_API_KEY"),
        (fails(404), "check base_url and model"),
        (redirects("http://127.0.0.1:9/v1"), "give the final address"),
    ],
)
def test_what_no_question_passes_ends_at_once(make_client: MakeClient, act: Act, told: str) -> None:
    with judge_endpoint(act) as endpoint, pytest.raises(JudgeUnavailable, match=told) as error:
        make_client(endpoint.url).ask(body())
    assert len(endpoint.seen) == 1 and endpoint.url in str(error.value)


def test_a_bad_request_is_asked_once_and_says_what_the_endpoint_said(make_client: MakeClient) -> None:
    told = pytest.raises(Unanswered, match=r"HTTP 400, context \[31mtoo long")
    with judge_endpoint(fails(400, "context\n\x1b[31mtoo long")) as endpoint, told as error:
        make_client(endpoint.url).ask(body())
    assert len(endpoint.seen) == 1 and endpoint.url in str(error.value)


def test_the_key_does_not_follow_a_redirect(make_client: MakeClient) -> None:
    with judge_endpoint(says("yes")) as other:
        elsewhere = redirects(other.url + "/chat/completions")
        with judge_endpoint(elsewhere) as endpoint, pytest.raises(JudgeUnavailable):
            make_client(endpoint.url).ask(body())
    assert other.seen == []


@pytest.mark.parametrize("act", [stalls(3), trickles])
def test_a_call_ends_when_its_time_is_over(make_client: MakeClient, act: Act) -> None:
    with judge_endpoint(act) as endpoint:
        started = time.monotonic()
        with pytest.raises(Unanswered, match=r"timeout_s=0.3 \(2 calls\)"):
            make_client(endpoint.url, timeout_s=0.3, retries=1).ask(body())
        assert time.monotonic() - started < 2.5


def test_an_answer_beyond_the_limit_is_refused(make_client: MakeClient) -> None:
    with judge_endpoint(says("x" * LARGEST_REPLY)) as endpoint, pytest.raises(Unanswered, match="longer than 1000000"):
        make_client(endpoint.url).ask(body())
    assert len(endpoint.seen) == 1


def test_the_cap_holds_exactly_under_eight_threads(make_client: MakeClient) -> None:
    def ask(number: int) -> str:
        try:
            return client.ask(body(str(number))).text
        except JudgeUnavailable as error:
            return str(error)

    with judge_endpoint(says("yes")) as endpoint, ThreadPoolExecutor(8) as pool:
        client = make_client(endpoint.url, max_calls=13)
        answers = list(pool.map(ask, range(40)))
    assert len(endpoint.seen) == client.calls == answers.count("yes") == 13
    assert set(answers) == {"yes", "evaluate.judge.max_calls=13 are used up; raise it"}


def test_repeated_calls_count_too(make_client: MakeClient) -> None:
    with judge_endpoint(fails(500)) as endpoint, pytest.raises(JudgeUnavailable, match="max_calls=2 are used up"):
        make_client(endpoint.url, max_calls=2).ask(body())
    assert len(endpoint.seen) == 2


def test_no_more_calls_than_parallel_are_under_way(make_client: MakeClient) -> None:
    under_way, most, lock = 0, 0, threading.Lock()

    def act(handler: Any) -> None:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.05)
        with lock:
            under_way -= 1
        says("yes")(handler)

    with judge_endpoint(act) as endpoint, ThreadPoolExecutor(8) as pool:
        list(pool.map(make_client(endpoint.url, parallel=2).ask, [body(str(number)) for number in range(12)]))
    assert most == 2


def test_an_endpoint_that_is_gone_ends_the_judging(make_client: MakeClient) -> None:
    client = make_client(f"http://127.0.0.1:{free_port()}/v1", retries=0)
    for number in range(IN_A_ROW - 1):
        with pytest.raises(Unanswered, match="ConnectError"):
            client.ask(body(str(number)))
    with pytest.raises(JudgeUnavailable, match="10 questions in a row"):
        client.ask(body())


def test_after_the_end_nothing_is_sent_and_kept_verdicts_are_found(make_client: MakeClient) -> None:
    with judge_endpoint(says("yes"), fails(401), says("yes")) as endpoint:
        client = make_client(endpoint.url)
        client.ask(body("kept"))
        for question in "ab":
            with pytest.raises(JudgeUnavailable, match="HTTP 401"):
                client.ask(body(question))
        assert client.ask(body("kept")).kept_before
    assert len(endpoint.seen) == 2


def test_a_closed_client_ends_waiting_questions(make_client: MakeClient) -> None:
    client = make_client(f"http://127.0.0.1:{free_port()}/v1")
    client._waits = Waits(first_s=60)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.ask, body())
        time.sleep(0.2)
        client.close()
        with pytest.raises(JudgeUnavailable, match="has ended"):
            waiting.result(timeout=5)


def test_the_key_shows_nowhere(make_client: MakeClient, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    told = ["x" * 270 + f" Incorrect API key provided: {KEY}", f"Bearer {KEY}"]
    texts = []
    with judge_endpoint(says(told[1]), fails(400, told[0]), fails(500, told[1]), fails(401, told[0])) as endpoint:
        client = make_client(endpoint.url, retries=0)
        texts.append(repr((client, vars(client), vars(client._endpoint), client.ask(body("0")))))
        for number in range(1, 4):
            with pytest.raises((Unanswered, JudgeUnavailable)) as error:
                client.ask(body(str(number)))
            texts.append("".join(traceback.format_exception(error.value)))
    texts += [path.read_text() for path in tmp_path.rglob("*.json")]
    assert len(texts) == 5 and KEY[:10] not in "\n".join(texts) + caplog.text and "[key]" in texts[-1]
    assert len(endpoint.seen) == 4


@pytest.mark.parametrize("key", ["sk-secret value", "sk-secret\nvalue", "sk-sécret"])
def test_a_key_that_no_header_holds_is_refused_without_being_shown(make_client: MakeClient, key: str) -> None:
    with pytest.raises(UserError, match="the key in OPENAI_API_KEY") as error:
        make_client("http://127.0.0.1:9/v1", key=key)
    assert "cret" not in str(error.value)


@pytest.mark.parametrize("key", [None, " \n"])
def test_an_endpoint_may_need_no_key(make_client: MakeClient, key: str | None) -> None:
    with judge_endpoint(says("yes")) as endpoint:
        make_client(endpoint.url, key=key).ask(body())
    assert endpoint.seen[0].authorization is None


def test_no_endpoint_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="base_url is not set"):
        JudgeClient(JudgeConfig(), SecretStr(KEY), Verdicts(tmp_path))


def test_a_reasoning_model_has_other_options() -> None:
    asked = {**body(), "model": "gpt-4o", "temperature": 0, "max_tokens": 9}
    assert adapted(asked, JudgeConfig(base_url="http://h", model="m")) == {**asked, "model": "m"}
    reasoning = adapted(asked, JudgeConfig(base_url="http://h", model="m", reasoning=True))
    assert reasoning == {**body(), "model": "m", "max_completion_tokens": 9}


def test_any_text_is_asked(tmp_path: Path) -> None:
    with judge_endpoint(says("ü")) as endpoint:
        assert client_of(tmp_path, endpoint.url).ask(body("\ud800 \0 ü")).text == "ü"
    assert json.loads(json.dumps(endpoint.seen[0].body["messages"][0]["content"])) == "\ud800 \0 ü"
