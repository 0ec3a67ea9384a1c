"""What `--explain` says of a step is what a run would do."""

from __future__ import annotations

from pathlib import Path

from components.artifact_store import ArtifactStore
from components.artifacts import StepKey
from components.config import PipelineConfig
from flows.explain import decide


def test_a_registration_that_is_no_longer_in_the_registry_is_not_reused(tmp_path: Path) -> None:
    config = PipelineConfig.model_validate({"tracking": {"state_dir": str(tmp_path / "state")}})
    store = ArtifactStore(str(tmp_path / "runs"), tmp_path / "cache")
    key = StepKey("register")
    with store.create(key) as out:
        out.write_json("registration.json", {"name": "m", "version": "1", "champion": True, "reason": ""})
    decision, found = decide(key, config, store, frozenset())
    assert not decision.reused and found is None
    assert decision.reason == "version 1 of m is not in the registry any more"
