"""Find the champion, so that it can be asked the same questions as the candidate: what the registry says, at this moment.

A champion that is the candidate itself is none to be better than: a run that is repeated keeps the comparison that made it
the champion.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.artifacts.artifact import Artifact, ArtifactWriter
from components.artifacts.context import StepContext
from components.artifacts.opened import artifact_at
from components.champion.settings import ChampionSettings
from components.errors import UserError
from components.register.aliases import CHAMPION, MODEL_TAG, PLACE_TAG, version_by_alias
from components.register.registry import RegistryAwayError, registry
from components.tracking.runs import store_is_there, tracking_client
from components.tracking.settings import TrackingConfig

NONE = {"version": None, "model_digest": None, "problem": None}


def run(settings: ChampionSettings, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StepContext) -> None:
    """Input: model, the candidate. Writes champion.json; the link `model` leads to the champion's model directory."""
    found: dict[str, Any] = {"name": settings.name, **NONE}
    if settings.asked:
        version, problem = present_champion(settings)
        found["problem"] = problem
        if version is not None and version.tags.get(MODEL_TAG) != inputs["model"].digest:
            found |= described(version, context)
            if found["problem"] is None:
                out.links["model"] = version.tags[PLACE_TAG]
    out.write_json("champion.json", found)
    context.progress(said(settings, found))


def present_champion(settings: ChampionSettings) -> tuple[Any | None, str | None]:
    """The version that the alias is on, or None, and why that could not be found out."""
    if not store_is_there(settings.tracking):
        return None, None
    try:
        with registry(settings.tracking) as (client, _):
            return version_by_alias(client, settings.name, CHAMPION), None
    except RegistryAwayError as error:
        return None, f"the registry did not say which model is the champion: {error}"


def described(version: Any, context: StepContext) -> dict[str, Any]:
    """A version as champion.json holds it, with what stands in the way of asking it."""
    digest, place = version.tags.get(MODEL_TAG), version.tags.get(PLACE_TAG)
    problem = None
    if not (digest and place):
        problem = f"version {version.version} was not registered by this pipeline, so that it cannot be asked"
    else:
        try:
            if artifact_at(place, context.cache_dir).digest != digest:
                problem = f"the files at {place} are not those of version {version.version} any more"
        except UserError as error:
            problem = str(error)
    return {"version": str(version.version), "model_digest": digest, "problem": problem}


def said(settings: ChampionSettings, found: Mapping[str, Any]) -> str:
    if not settings.asked:
        return "not asked for: gate is null"
    if found["problem"]:
        return f"cannot be asked: {found['problem']}"
    if found["version"] is None:
        return f"{settings.name} has no other champion; the base model is what to beat"
    return f"{settings.name} version {found['version']}"


def lapse(settings: ChampionSettings, artifact: Artifact) -> str | None:
    """Why the champion must be looked up again, or None. A store that does not answer counts as unchanged."""
    found = artifact.read_json("champion.json")
    if not settings.asked:
        return None
    if found["problem"]:
        return f"the champion could not be asked: {found['problem']}"
    now = _digest_now(settings.tracking, settings.name, found["model_digest"])
    candidate = artifact.manifest["inputs"]["model"]["digest"]
    if now in (found["model_digest"], candidate):
        return None
    return f"{settings.name} has another champion now"


def _digest_now(tracking: TrackingConfig, name: str, otherwise: str | None) -> str | None:
    from mlflow.exceptions import MlflowException

    if not store_is_there(tracking):
        return None
    try:
        version = version_by_alias(tracking_client(tracking), name, CHAMPION)
    except MlflowException:
        return otherwise
    return None if version is None else version.tags.get(MODEL_TAG, "")
