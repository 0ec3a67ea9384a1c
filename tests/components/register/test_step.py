"""Registration against a real MLflow registry on SQLite: aliases, the gate both ways, evidence, no duplicates."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from os.path import exists
from pathlib import Path
from typing import Any

import pytest

from components.artifacts.artifact import Artifact, ArtifactWriter, StepKey
from components.artifacts.context import StepContext
from components.artifacts.store import ArtifactStore
from components.evidence.paired import paired
from components.pipeline.config import PipelineConfig
from components.pipeline.steps import STEPS
from components.preflight.gate import passable
from components.register import gate as promotion
from components.register import rules
from components.register.aliases import version_by_alias
from components.register.registry import is_champion, lapse
from components.register.step import run
from components.tracking.runs import tracking_client

Register = Callable[..., Artifact]
N = 100  # questions


def scores_of(accuracy: float) -> list[float]:
    return [float(n < round(accuracy * N)) for n in range(N)]


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One SQLite store for the module: creating its schema takes seconds. Each test uses a name of its own."""
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture
def config(state_dir: Path, request: pytest.FixtureRequest) -> PipelineConfig:
    name = request.node.name.replace("[", "-").replace("]", "")
    return PipelineConfig.model_validate(
        {
            "name": name,
            "tracking": {"state_dir": str(state_dir)},
            "gate": {"min_gain": 0.1},
            "evaluate": {"task": "heldout"},
        }
    )


@pytest.fixture
def client(config: PipelineConfig) -> Any:
    return tracking_client(config.tracking)


@pytest.fixture
def register(tmp_path: Path, config: PipelineConfig, step_context: Callable[..., StepContext]) -> Register:
    """register(after, weights="x", before=0.1): a run of the step for a model with these bytes and this metric."""
    store = ArtifactStore(str(tmp_path / "runs"), tmp_path / "cache")
    scores: dict[str | None, float] = {}
    weights_of: dict[str, str] = {}

    def champion_of(settings: PipelineConfig) -> dict[str, Any]:
        """As the chain's steps before find it."""
        if settings.tracking.uri is not None:
            return {"version": None, "model_digest": None, "problem": None, "weights": None}
        champion = version_by_alias(tracking_client(settings.tracking), settings.name, "champion")
        if champion is None:
            return {"version": None, "model_digest": None, "problem": None, "weights": None}
        digest = champion.tags["plm.model_digest"]
        return {"version": champion.version, "model_digest": digest, "problem": None, "weights": weights_of[digest]}

    def made(step: str, inputs: dict[str, Artifact], fill: Callable[[ArtifactWriter], Any], **parts: Any) -> Artifact:
        key = StepKey(step, config=parts)
        with store.create(key, inputs) as out:
            fill(out)
        artifact = store.find(key)
        assert artifact is not None
        return artifact

    def registered(
        after: float,
        weights: str = "x",
        before: float = 0.1,
        settings: PipelineConfig = config,
        data: str = "digits",
        rival: Any = None,
        others: Mapping[str, str] = {},
    ) -> Artifact:
        scores[weights] = after
        rival = rival or champion_of(settings)
        known = {"before": before} | ({"champion": scores[rival["weights"]]} if rival["weights"] in scores else {})
        values = {"metric": "exact_match", "before": before, "after": after, "gain": after - before}
        against = {who: paired(scores_of(value), scores_of(after)).as_json() for who, value in known.items()}
        task = {**values, "ci_low": 0.0, "ci_high": 1.0, "n": N, "limit": None, "not_measured": None, "unit": 1.0}
        comparison: dict[str, Any] = {
            "main": "heldout",
            "rival": rival,
            "tasks": {"heldout": {**task, "against": against}},
        }
        for name, reason in others.items():
            comparison["tasks"][name] = {"metric": "anls", "not_measured": reason}
        dataset = made("convert", {}, lambda out: out.write_json("test.json", data), data=data)
        parts = {"after": after, "weights": weights, "data": data, "rival": rival["version"], "others": dict(others)}
        inputs = {
            "model": made("consolidate", {}, lambda out: out.write_json("model.json", weights), weights=weights),
            "comparison": made(
                "compare", {"dataset": dataset}, lambda out: out.write_json("comparison.json", comparison), **parts
            ),
        }
        weights_of[inputs["model"].digest] = weights
        context = step_context(
            tags={"prefect.flow_run_id": "flow-7", "mlflow.source.git.commit": "abc123", "plm.config_sha": "c0ffee"}
        )
        return made(
            "register", inputs, lambda out: run(STEPS["register"].settings(settings), inputs, out, context), **parts
        )

    return registered


def test_a_model_that_beats_the_base_becomes_champion(register: Register, config: PipelineConfig, client: Any) -> None:
    result = register(0.9).read_json("registration.json")
    assert result["champion"]
    assert client.get_model_version_by_alias(config.name, "champion").version == result["version"]


def test_a_model_below_the_gate_is_only_challenger(register: Register, config: PipelineConfig, client: Any) -> None:
    result = register(0.15).read_json("registration.json")
    assert not result["champion"]
    assert client.get_model_version_by_alias(config.name, "challenger").version == result["version"]
    assert "champion" not in client.get_registered_model(config.name).aliases


def test_the_next_champion_must_beat_the_present_one(register: Register, config: PipelineConfig, client: Any) -> None:
    first = register(0.7, "first").read_json("registration.json")
    second = register(0.75, "second").read_json("registration.json")
    aliases = client.get_registered_model(config.name).aliases
    assert not second["champion"]
    assert "too little better: heldout exact_match 0.7500 against 0.7000 of champion version" in second["reason"]
    assert (aliases["champion"], aliases["challenger"]) == (first["version"], second["version"])


def test_the_champion_that_was_is_kept_as_previous(register: Register, config: PipelineConfig, client: Any) -> None:
    first = register(0.7, "first").read_json("registration.json")
    second = register(0.8, "second").read_json("registration.json")  # a gain of exactly min_gain
    aliases = client.get_registered_model(config.name).aliases
    assert (aliases["champion"], aliases["previous_champion"]) == (second["version"], first["version"])


@pytest.mark.case("E19e")
def test_a_gate_that_no_model_can_pass_is_said_before_the_training(
    register: Register, config: PipelineConfig, client: Any
) -> None:
    assert list(passable(config)) == []  # nothing is registered yet
    register(0.89)
    assert list(passable(config)) == []
    version = register(0.995, "better").read_json("registration.json")["version"]
    (finding,) = passable(config)
    assert finding.text == (
        f"gate.min_gain is 0.1, and the champion of {config.name} (version {version}) has exact_match 0.9950: not even 1 would "
        "pass; lower it to 0.0050 or less"
    )
    assert not finding.refuses


def test_a_champion_that_moved_meanwhile_makes_the_gate_inconclusive(
    register: Register, config: PipelineConfig, client: Any
) -> None:
    """It was compared with the base model, and there is a champion by now."""
    nobody = {"version": None, "model_digest": None, "problem": None, "weights": None}
    first = register(0.7, "first").read_json("registration.json")
    second = register(0.95, "second", rival=nobody).read_json("registration.json")
    assert (second["verdict"], second["champion"]) == ("inconclusive", False)
    assert (
        f"version {first['version']} is the champion now, and the comparison is with the base model" in second["reason"]
    )
    assert client.get_model_version_by_alias(config.name, "champion").version == first["version"]


def test_a_champion_that_could_not_be_asked_makes_the_gate_inconclusive(
    register: Register, config: PipelineConfig
) -> None:
    register(0.7, "first")
    gone = {"version": "1", "model_digest": "x", "problem": "its files are gone", "weights": None}
    assert (
        "not asked the same questions: its files are gone"
        in (register(0.95, "second", rival=gone).read_json("registration.json")["reason"])
    )


def test_the_main_task_is_the_one_that_the_comparison_names(register: Register, config: PipelineConfig) -> None:
    """Though another comes first in the file, in which names are sorted."""
    result = register(0.9, others={"Abc": "needs a judge"}).read_json("registration.json")
    assert result["verdict"] == "inconclusive" and result["reason"].endswith("Abc not measured: needs a judge")
    assert any(rule.startswith("better passed: better: heldout") for rule in result["rules"])


def test_without_a_gate_every_model_becomes_champion(register: Register, config: PipelineConfig) -> None:
    register(0.9, "first")
    settings = config.model_copy(update={"gate": None})
    assert register(0.2, "second", settings=settings).read_json("registration.json")["verdict"] == "promote"


def test_the_same_weights_compared_anew_stay_one_version_with_the_new_evidence(
    register: Register, config: PipelineConfig, client: Any
) -> None:
    first = register(0.9, data="old").read_json("registration.json")
    again = register(0.8, data="new").read_json("registration.json")
    assert first["version"] == again["version"]
    assert client.get_model_version(config.name, first["version"]).tags["metric/heldout/exact_match"] == "0.8"


def test_the_same_model_is_registered_once(register: Register, config: PipelineConfig, client: Any) -> None:
    first = register(0.9).read_json("registration.json")
    again = register(0.9).read_json("registration.json")
    assert (first["version"], again["champion"]) == (again["version"], True)
    assert len(client.search_model_versions(f"name = '{config.name}'")) == 1


def test_a_version_carries_its_evidence(
    register: Register, config: PipelineConfig, client: Any, tmp_path: Path
) -> None:
    artifact = register(0.9)
    version = client.get_model_version(config.name, artifact.read_json("registration.json")["version"])
    inputs = artifact.manifest["inputs"]
    assert version.source == f"{tmp_path}/runs/{inputs['model']['uri']}"
    assert {
        "plm.model_digest": inputs["model"]["digest"],
        "mlflow.source.git.commit": "abc123",
        "prefect.flow_run_id": "flow-7",
        "plm.config_sha": "c0ffee",
        "metric/heldout/exact_match": "0.9",
        "metric/heldout/exact_match.before": "0.1",
        "plm.gate": "promote",
    }.items() <= version.tags.items()
    assert version.tags["plm.data_digest"]


def test_a_registration_is_gone_when_its_store_is(
    register: Register, config: PipelineConfig, tmp_path: Path, client: Any
) -> None:
    artifact = register(0.9)
    assert lapse(config.tracking, artifact, exists) is None
    client.delete_registered_model(config.name)
    assert "not in the registry any more" in (lapse(config.tracking, artifact, exists) or "")


@pytest.mark.case("R4")
def test_a_champion_whose_files_are_gone_follows_its_weights_to_where_they_are(
    register: Register, config: PipelineConfig, client: Any, tmp_path: Path
) -> None:
    """The storage was moved, say: the same weights are registered again, and the alias leads to files."""
    first = register(0.9)
    said = first.read_json("registration.json")
    (tmp_path / "runs").rename(tmp_path / "moved")
    reason = lapse(config.tracking, Artifact(first.uri.replace("/runs/", "/moved/"), first.manifest, tmp_path), exists)
    assert reason and "is not there any more" in reason and f"version {said['version']} of" in reason
    again = register(0.9)
    version = client.get_model_version_by_alias(config.name, "champion")
    assert version.version == again.read_json("registration.json")["version"] != said["version"]
    assert exists(version.tags["plm.model_uri"]) and "where they lie now" in version.tags["plm.gate.reason"]
    assert "previous_champion" not in client.get_registered_model(config.name).aliases
    assert lapse(config.tracking, again, exists) is None


def test_asking_about_a_registration_makes_no_store(register: Register, config: PipelineConfig, tmp_path: Path) -> None:
    artifact = register(0.9)
    elsewhere = config.model_copy(update={"tracking": config.tracking.model_copy(update={"state_dir": str(tmp_path)})})
    assert "not in the registry any more" in (lapse(elsewhere.tracking, artifact, exists) or "")
    assert not (tmp_path / "mlflow.db").exists()


def test_a_run_that_goes_back_to_an_earlier_model_makes_it_the_challenger_again(
    register: Register, config: PipelineConfig, client: Any
) -> None:
    """A becomes champion, then B, then A runs again: nothing is computed anew, and what is said of it is true."""
    first = register(0.7, "first")
    second = register(0.9, "second")
    assert lapse(config.tracking, second, exists) is None and "not the challenger" in (
        lapse(config.tracking, first, exists) or ""
    )
    said = first.read_json("registration.json")
    assert said["champion"] and not is_champion(config.tracking, said)
    again = register(0.7, "first").read_json("registration.json")
    aliases = client.get_registered_model(config.name).aliases
    assert (again["version"], again["champion"]) == (said["version"], False)
    assert aliases["challenger"] == said["version"] and is_champion(
        config.tracking, second.read_json("registration.json")
    )


def test_a_champion_that_was_moved_by_hand_stays_where_it_is(
    register: Register, config: PipelineConfig, client: Any
) -> None:
    first = register(0.7, "first").read_json("registration.json")
    second = register(0.9, "second")
    client.set_registered_model_alias(config.name, "champion", first["version"])
    assert lapse(config.tracking, second, exists) is None and not is_champion(
        config.tracking, second.read_json("registration.json")
    )


def test_an_optional_registry_that_is_away_is_only_noted(register: Register, config: PipelineConfig) -> None:
    tracking = config.tracking.model_copy(update={"uri": "http://127.0.0.1:9", "required": False})
    settings = config.model_copy(update={"tracking": tracking})
    artifact = register(0.9, settings=settings)
    assert artifact.read_json("registration.json")["version"] is None
    assert "was away" in (lapse(settings.tracking, artifact, exists) or "")


@pytest.mark.case("R10")
def test_of_two_that_are_promoted_at_once_the_better_one_stays(
    register: Register, config: PipelineConfig, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The better one comes from another machine, between the worse one's look at the champion and its own move."""
    register(0.6, "first")
    decide = rules.decide

    def meanwhile(gate: Any, evidence: Any) -> Any:
        monkeypatch.setattr(promotion, "decide", decide)
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr("components.register.step.alone", lambda *_: contextlib.nullcontext())
            better.append(register(0.95, "better").read_json("registration.json"))
        return decide(gate, evidence)

    better: list[dict[str, Any]] = []
    monkeypatch.setattr(promotion, "decide", meanwhile)
    worse = register(0.85, "worse").read_json("registration.json")
    assert better[0]["champion"] and not worse["champion"]
    assert client.get_model_version_by_alias(config.name, "champion").version == better[0]["version"]
    assert f"against 0.9500 of version {better[0]['version']}, which was promoted at the same time" in worse["reason"]
    tags = client.get_model_version(config.name, worse["version"]).tags
    assert tags["plm.gate"] == "hold" and tags["plm.gate.reason"] in worse["reason"]


@pytest.mark.case("R10")
def test_two_promotions_of_one_machine_wait_for_each_other(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with promotion.alone(tmp_path, "team/model"):
            order.append("second")

    with promotion.alone(tmp_path, "team/model"):
        waiting = threading.Thread(target=second)
        waiting.start()
        waiting.join(0.3)
        order.append("first")
    waiting.join(10)
    assert order == ["first", "second"]


def test_figures_of_benchmarks_are_tags_that_the_registry_takes(
    register: Register, config: PipelineConfig, client: Any
) -> None:
    from components.evaluate.results import metric_name
    from components.evaluate.suites.suite import read_suite

    columns = [column for suite in ("plm_image", "plm_video", "plm_videobench") for column in read_suite(suite).columns]
    version = register(0.9).read_json("registration.json")["version"]
    for column in columns:
        client.set_model_version_tag(config.name, version, f"metric/{column.title}/{metric_name(column)}.gain_ci", "0")
    assert len(client.get_model_version(config.name, version).tags) > len(columns) == 45
