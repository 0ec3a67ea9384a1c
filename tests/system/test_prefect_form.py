"""Prefect's page "Custom run": the untouched form changes nothing of the config file, a changed key changes that key alone.

Nothing runs: each flow run is put off into the future, and its parameters are resolved as the flow resolves them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from components.pipeline.config import PipelineConfig
from components.pipeline.config_loading import flatten, load_config
from components.pipeline.config_overrides import config_of
from tests.browser import Browser, browser
from tests.prefect_page import page_session, untouched_form
from tests.system.conftest import SMOKE, Prefect, Workplace, wait_for

pytestmark = pytest.mark.case("E1")
DEMO = "configs/demo.yaml"


@pytest.fixture(scope="module")
def page(prefect_deployed: str) -> Iterator[httpx.Client]:
    with contextlib.closing(page_session(prefect_deployed)) as session:
        yield session


@pytest.fixture(scope="module")
def deployment(page: httpx.Client) -> dict[str, Any]:
    return page.get("deployments/name/finetune-flow/local").raise_for_status().json()


def later() -> dict[str, Any]:
    when = datetime.now(UTC) + timedelta(days=2)
    return {"type": "SCHEDULED", "state_details": {"scheduled_time": when.isoformat()}}


def submit(page: httpx.Client, deployment: dict[str, Any], parameters: dict[str, Any]) -> httpx.Response:
    body = {"parameters": parameters, "state": later(), "enforce_parameter_schema": True}
    return page.post(f"deployments/{deployment['id']}/create_flow_run", json=body)


def resolved(flow_run: dict[str, Any]) -> PipelineConfig:
    """The config that a flow run of these parameters trains: by Prefect's validation and the flow's own."""
    from flows.finetune import finetune_flow

    given = finetune_flow.validate_parameters(flow_run["parameters"])
    return config_of(given["config"], given["overrides"])


def changed(config: PipelineConfig, path: str = DEMO) -> dict[str, Any]:
    """The leaves that differ from the file's, with their new values."""
    ours, theirs = (flatten(one.model_dump(mode="json")) for one in (config, load_config(path)))
    return {key: ours.get(key) for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}


@pytest.mark.parametrize(
    "path", [DEMO, "configs/stage_1/plm_1b.yaml"]
)  # another kind of source than the first of the form
def test_an_untouched_form_changes_nothing(page: httpx.Client, deployment: dict[str, Any], path: str) -> None:
    given = deployment["parameters"] | {"config": path}
    answer = submit(page, deployment, untouched_form(deployment["parameter_openapi_schema"], given))
    assert answer.status_code == 201, answer.text
    assert resolved(answer.json()) == load_config(path)


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        ({"train": {"steps": 5}}, {"train.steps": 5}),
        ({"train": {"guards": {"on_spike": "skip"}}}, {"train.guards.on_spike": "skip"}),
        ({"convert": {"questions": ["What is it?"]}}, {"convert.questions": ["What is it?"]}),
        ({"train": {"clip_norm": None}}, {"train.clip_norm": None}),
        (["train.steps=5"], {"train.steps": 5}),
    ],
)
def test_a_changed_key_is_the_only_change(
    page: httpx.Client, deployment: dict[str, Any], overrides: Any, keys: dict[str, Any]
) -> None:
    form = untouched_form(deployment["parameter_openapi_schema"], deployment["parameters"] | {"overrides": overrides})
    answer = submit(page, deployment, form)
    assert answer.status_code == 201, answer.text
    assert changed(resolved(answer.json())) == keys


def test_one_parameter_alone_keeps_the_file(page: httpx.Client, deployment: dict[str, Any]) -> None:
    """`prefect deployment run … --param 'overrides={…}'` sends nothing else."""
    answer = submit(page, deployment, {"overrides": {"train": {"steps": 5}}})
    assert changed(resolved(answer.json())) == {"train.steps": 5}


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"config": {"extends": DEMO, "train": {"steps": 5}}}, 'config="configs/demo.yaml", overrides={"train"'),
        ({"overrides": {"train": {"stpes": 5}}}, "'stpes' was unexpected"),
        ({"overrides": {"extends": DEMO}}, "'extends' was unexpected"),
    ],
)
def test_what_the_form_does_not_have_is_refused_before_it_runs(
    page: httpx.Client, deployment: dict[str, Any], parameters: dict[str, Any], says: str
) -> None:
    answer = submit(page, deployment, parameters)
    assert answer.status_code == 409 and says in answer.json()["detail"]


def test_the_old_form_ends_with_the_new_one() -> None:
    """As a run meets it that was scheduled before, or by a server that does not check."""
    from prefect.exceptions import ParameterTypeError

    from flows.finetune import finetune_flow

    with pytest.raises(ParameterTypeError, match=r'config="configs/demo.yaml", overrides=\{"train": \{"steps": 5\}\}$'):
        finetune_flow.validate_parameters({"config": {"extends": DEMO}})


@pytest.fixture
def paused(page: httpx.Client) -> Iterator[None]:
    """No worker takes what the page starts now."""
    page.patch("work_pools/plm-local", json={"is_paused": True}).raise_for_status()
    yield
    page.patch("work_pools/plm-local", json={"is_paused": False}).raise_for_status()


@contextlib.contextmanager
def logged_in(api: str, folder: Path) -> Iterator[Browser]:
    """A browser in which somebody has logged in to Prefect's page."""
    with browser(folder) as opened:
        opened.open(api.removesuffix("/api"))
        opened.type("//input[@type='password']", os.environ["PREFECT_API_AUTH_STRING"])
        opened.click("//button[@type='submit']")
        opened.see("//*[text()='Deployments']")
        yield opened


@pytest.fixture(scope="module")
def window(prefect_deployed: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with logged_in(prefect_deployed, tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def submit_in(window: Browser, page: httpx.Client, deployment: dict[str, Any], fill: dict[str, str]) -> dict[str, Any]:
    """Fill in the fields of "Custom run" and submit; returns the flow run that the server has then."""
    ui = str(page.base_url).removesuffix("/api/")
    window.open(f"{ui}/v2/deployments/deployment/{deployment['id']}/run")
    window.see("//input[@name='name']")
    for label, text in fill.items():
        window.type(f"//*[@id=//label[.='{label}' or .='{label} (Optional)']/@for]", text)
    before = flow_runs(page, deployment)
    for _ in range(3):  # the page asks once; where SQLite was busy it says so, and one clicks again
        window.click("//button[normalize-space()='Submit']")
        with contextlib.suppress(AssertionError):
            wait_for(lambda: len(flow_runs(page, deployment)) > len(before), 20, "a flow run of the page's")
            break
    (made,) = (run for name, run in flow_runs(page, deployment).items() if name not in before)
    return made


def flow_runs(page: httpx.Client, deployment: dict[str, Any]) -> dict[str, dict[str, Any]]:
    rows = page.post("flow_runs/filter", json={"deployments": {"id": {"any_": [deployment["id"]]}}}).json()
    return {row["id"]: row for row in rows}


@pytest.mark.parametrize(("fill", "keys"), [({}, {}), ({"split_seed": "7"}, {"convert.split_seed": 7})])
def test_the_page_itself_sends_what_was_filled_in(
    paused: None,
    window: Browser,
    page: httpx.Client,
    deployment: dict[str, Any],
    fill: dict[str, str],
    keys: dict[str, Any],
) -> None:
    made = submit_in(window, page, deployment, fill)
    page.post(f"flow_runs/{made['id']}/set_state", json={"state": {"type": "CANCELLED"}, "force": True})
    assert changed(resolved(made)) == keys


@pytest.mark.e2e
def test_the_whole_chain_runs_from_the_page(
    prefect: Prefect, page: httpx.Client, deployment: dict[str, Any], tmp_path: Path, repository: Path
) -> None:
    """A worker takes what the page submits: e2e, because the smoke chain is run once more for it."""
    place = Workplace(tmp_path, repository)
    fields = {"root": f"{tmp_path}/runs", "cache_dir": f"{tmp_path}/cache", "state_dir": f"{tmp_path}/state"}
    with logged_in(prefect.api, tmp_path) as window:
        made = submit_in(window, page, deployment, {"config": SMOKE, **fields})
    state = prefect.wait(made["id"], 800, "Completed", "Failed", "Crashed", "Cancelled")
    assert state == "Completed", prefect.get(f"flow_runs/{made['id']}")["state"]["message"]
    assert resolved(made) == place.config
    assert place.summary["heldout"] == 16 and place.summary["registered_model_version"]
