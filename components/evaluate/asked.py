"""Which model an evaluation asks: the one it was given, or the champion that it was referred to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.artifacts.artifact import Artifact
from components.artifacts.opened import artifact_at
from components.errors import UserError

CHAMPION = "champion"  # the step whose artifact refers to a model


@dataclass(frozen=True)
class AskedModel:
    """A model directory, or why there is none; of a champion its version, too."""

    model: Artifact | None
    version: str | None = None
    problem: str | None = None
    model_digest: str | None = None

    def described(self) -> dict[str, Any]:
        """As results.json holds it."""
        return {"version": self.version, "problem": self.problem, "model_digest": self.model_digest}


def asked_model(given: Artifact, cache_dir: Path) -> AskedModel:
    """The model to ask. A champion whose files are gone is a problem that the gate tells of, no error."""
    if given.step != CHAMPION:
        return AskedModel(given, model_digest=given.digest)
    found: Mapping[str, Any] = given.read_json("champion.json")
    if found["version"] is None or found["problem"] is not None:
        return AskedModel(None, found["version"], found["problem"], found["model_digest"])
    try:
        model = artifact_at(given.links["model"], cache_dir)
    except UserError as error:
        return AskedModel(None, found["version"], str(error), found["model_digest"])
    return AskedModel(model, found["version"], None, found["model_digest"])
