"""Which model is to be beaten: found in a real registry, and looked up again when another one took its place."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.artifacts.artifact import Artifact, ArtifactWriter, StepKey
from components.artifacts.context import StepContext
from components.artifacts.store import ArtifactStore
from components.champion.settings import ChampionSettings
from components.champion.step import lapse, run
from components.evaluate.asked import asked_model
from components.tracking.runs import tracking_client
from components.tracking.settings import TrackingConfig

Find = Callable[..., Artifact]


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> TrackingConfig:
    return TrackingConfig(state_dir=str(tmp_path_factory.mktemp("mlflow")))


@pytest.fixture
def settings(tracking: TrackingConfig, request: pytest.FixtureRequest) -> ChampionSettings:
    tracking_client(tracking)
    return ChampionSettings(request.node.name, True, tracking)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "runs"), tmp_path / "cache")


def made(
    store: ArtifactStore, step: str, inputs: dict[str, Artifact], fill: Callable[[ArtifactWriter], Any]
) -> Artifact:
    key = StepKey(step, {name: artifact.digest for name, artifact in inputs.items()}, {"of": fill.__doc__ or ""})
    with store.create(key, inputs) as out:
        fill(out)
    artifact = store.find(key)
    assert artifact is not None
    return artifact


def model(store: ArtifactStore, weights: str) -> Artifact:
    def fill(out: ArtifactWriter) -> None:
        out.write_json("weights.json", weights)

    fill.__doc__ = weights
    return made(store, "consolidate", {}, fill)


def crown(settings: ChampionSettings, artifact: Artifact, **tags: str) -> str:
    """Make a model the champion; returns its version."""
    client = tracking_client(settings.tracking)
    if not client.search_registered_models(f"name = '{settings.name}'"):
        client.create_registered_model(settings.name)
    evidence = {"plm.model_digest": artifact.digest, "plm.model_uri": artifact.uri, **tags}
    version = client.create_model_version(settings.name, artifact.uri, tags=evidence)
    client.set_registered_model_alias(settings.name, "champion", version.version)
    return str(version.version)


@pytest.fixture
def find(settings: ChampionSettings, store: ArtifactStore, step_context: Callable[..., StepContext]) -> Find:
    """find(candidate): a run of the step."""

    def found(candidate: Artifact) -> Artifact:
        return made(
            store,
            "champion",
            {"model": candidate},
            lambda out: run(settings, {"model": candidate}, out, step_context()),
        )

    return found


def test_without_a_champion_there_is_nobody_to_ask(
    find: Find, store: ArtifactStore, settings: ChampionSettings
) -> None:
    found = find(model(store, "new"))
    assert asked_model(found, store.cache_dir).model is None
    assert lapse(settings, found) is None


def test_the_champion_is_asked_where_its_files_lie(
    find: Find, store: ArtifactStore, settings: ChampionSettings
) -> None:
    old = model(store, "old")
    version = crown(settings, old)
    asked = asked_model(find(model(store, "new")), store.cache_dir)
    assert asked.model is not None and asked.model.read_json("weights.json") == "old"
    assert asked.described() == {"version": version, "problem": None, "model_digest": old.digest}


def test_a_champion_of_another_storage_root_is_found_too(
    find: Find, store: ArtifactStore, settings: ChampionSettings, tmp_path: Path
) -> None:
    crown(settings, model(ArtifactStore(str(tmp_path / "elsewhere"), tmp_path / "cache"), "old"))
    asked = asked_model(find(model(store, "new")), store.cache_dir)
    assert asked.model is not None and asked.model.read_json("weights.json") == "old"


def test_the_candidate_itself_is_no_rival(find: Find, store: ArtifactStore, settings: ChampionSettings) -> None:
    candidate = model(store, "new")
    crown(settings, candidate)
    assert asked_model(find(candidate), store.cache_dir).version is None


def test_it_is_looked_up_again_when_another_model_took_its_place(
    find: Find, store: ArtifactStore, settings: ChampionSettings
) -> None:
    crown(settings, model(store, "old"))
    found = find(model(store, "new"))
    assert lapse(settings, found) is None
    crown(settings, model(store, "third"))
    assert lapse(settings, found) == f"{settings.name} has another champion now"


def test_a_run_whose_own_model_became_the_champion_keeps_its_comparison(
    find: Find, store: ArtifactStore, settings: ChampionSettings
) -> None:
    candidate = model(store, "new")
    found = find(candidate)
    crown(settings, candidate)
    assert lapse(settings, found) is None


def test_a_champion_whose_files_are_gone_is_a_problem_and_looked_up_again(
    find: Find, store: ArtifactStore, settings: ChampionSettings
) -> None:
    old = model(store, "old")
    crown(settings, old)
    shutil.rmtree(Path(old.uri).parent)
    found = find(model(store, "new"))
    assert f"{old.uri}: holds no artifact any more" in (asked_model(found, store.cache_dir).problem or "")
    assert "could not be asked" in (lapse(settings, found) or "")


def test_a_champion_that_somebody_registered_by_hand_is_a_problem(
    find: Find, store: ArtifactStore, settings: ChampionSettings
) -> None:
    old = model(store, "old")
    crown(settings, old, **{"plm.model_digest": ""})
    assert "was not registered by this pipeline" in (
        asked_model(find(model(store, "new")), store.cache_dir).problem or ""
    )


def test_a_registry_that_is_away_is_a_problem(
    store: ArtifactStore, step_context: Callable[..., StepContext], settings: ChampionSettings
) -> None:
    away = ChampionSettings(settings.name, True, TrackingConfig(uri="http://127.0.0.1:9"))
    candidate = model(store, "new")
    found = made(
        store, "champion", {"model": candidate}, lambda out: run(away, {"model": candidate}, out, step_context())
    )
    assert "did not say which model is the champion" in (asked_model(found, store.cache_dir).problem or "")


def test_where_no_gate_asks_nobody_is_looked_up(
    store: ArtifactStore, step_context: Callable[..., StepContext], settings: ChampionSettings
) -> None:
    crown(settings, model(store, "old"))
    candidate, off = model(store, "new"), ChampionSettings(settings.name, False, settings.tracking)
    found = made(
        store, "champion", {"model": candidate}, lambda out: run(off, {"model": candidate}, out, step_context())
    )
    assert (asked_model(found, store.cache_dir).version, lapse(off, found)) == (None, None)
