"""What `--explain` says of a step is what a run would do."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.artifacts.artifact import StepKey
from components.artifacts.store import ArtifactStore
from components.pipeline.config import PipelineConfig
from flows.run.explain import decide


def test_a_registration_that_is_no_longer_in_the_registry_is_not_reused(tmp_path: Path) -> None:
    config = PipelineConfig.model_validate({"tracking": {"state_dir": str(tmp_path / "state")}})
    store = ArtifactStore(str(tmp_path / "runs"), tmp_path / "cache")
    key = StepKey("register")
    with store.create(key) as out:
        out.write_json("registration.json", {"name": "m", "version": "1", "champion": True, "reason": ""})
    decision, found = decide(key, config, store, frozenset())
    assert not decision.reused and found is None
    assert decision.reason == "version 1 of m is not in the registry any more"


@pytest.mark.case("R7")
@pytest.mark.parametrize(
    ("file", "data", "reason"),
    [
        ("manifest.json", b"[]", "damaged: manifest.json is no JSON object"),
        ("*/comparison.json", b"", "damaged: comparison.json has 0 bytes instead of 3"),
    ],
)
def test_a_damaged_artifact_is_made_anew_and_the_line_says_so(
    tmp_path: Path, file: str, data: bytes, reason: str
) -> None:
    store, key = ArtifactStore(str(tmp_path / "runs"), tmp_path / "cache"), StepKey("compare")
    with store.create(key) as out:
        out.write_json("comparison.json", {})
    (path,) = (tmp_path / "runs/artifacts/compare").glob(f"*/{file}")
    path.write_bytes(data)
    decision, found = decide(key, PipelineConfig(), store, frozenset())
    assert (decision.reused, decision.reason, found) == (False, reason, None)


@pytest.mark.case("R7")
def test_a_registration_that_changed_is_not_reused(tmp_path: Path) -> None:
    store, key = ArtifactStore(str(tmp_path / "runs"), tmp_path / "cache"), StepKey("register")
    with store.create(key) as out:
        out.write_json("registration.json", {"name": "m", "version": "1"})
    (path,) = (tmp_path / "runs/artifacts/register").glob("*/*/registration.json")
    path.write_bytes(path.read_bytes().replace(b"1", b"2"))
    decision, found = decide(key, PipelineConfig(), store, frozenset())
    assert found is None and decision.reason.startswith(f"damaged: {path} holds other bytes than were recorded")
