"""Models and versions in MLflow's registry: opened, found, made, and whether they are still as a registration left them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from components.artifacts.artifact import Artifact
from components.artifacts.context import StepContext
from components.errors import UserError
from components.register.aliases import CHALLENGER, CHAMPION, MODEL_TAG, PLACE_TAG, version_by_alias
from components.tracking.runs import open_tracking, store_is_there, tracking_client
from components.tracking.settings import TrackingConfig


class RegistryAwayError(Exception):
    """The tracking store does not answer."""


@contextlib.contextmanager
def registry(tracking: TrackingConfig) -> Iterator[tuple[Any, str]]:
    """A client and the experiment's id. Raises RegistryAwayError when the store does not answer, at first or later."""
    from mlflow.exceptions import MlflowException

    try:
        yield open_tracking(tracking)
    except UserError as error:
        raise RegistryAwayError(str(error)) from error
    except MlflowException as error:
        if error.error_code not in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE"):  # what a lost connection looks like
            raise
        raise RegistryAwayError(" ".join(str(error).split())[:200]) from error


def ensure_model(client: Any, name: str) -> None:
    """Create the registered model where it is missing."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description="Made by PLM Pipeline; each version is one training run.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def find_version(client: Any, name: str, tags: Mapping[str, str]) -> str | None:
    """The version of the same weights at the same place, if there is one."""
    for version in client.search_model_versions(f"name = '{name}'"):
        if all(version.tags.get(key) == tags[key] for key in (MODEL_TAG, PLACE_TAG)):
            found: str = version.version
            return found
    return None


def update_evidence(client: Any, name: str, version: str, tags: Mapping[str, str]) -> None:
    """Let a version carry what the last comparison of its weights found, and nothing of the one before."""
    old = client.get_model_version(name, version).tags
    for key in old:
        if key.startswith("metric/") and key not in tags:
            client.delete_model_version_tag(name, version, key)
    for key, value in tags.items():
        if old.get(key) != value:
            client.set_model_version_tag(name, version, key, value)


def create_version(
    client: Any, experiment: str, name: str, model: Artifact, tags: Mapping[str, str], context: StepContext
) -> str:
    """A new version whose source is the artifact's URI.

    An MLflow server refuses sources on a local disk; there the source is a logged model, and the tag `plm.model_uri` says
    where it lies.
    """
    from mlflow.exceptions import MlflowException

    metric = next((key for key in tags if key.startswith("metric/") and not key.endswith(".not_measured")), None)
    measured = "not measured" if metric is None else f"{metric.removeprefix('metric/')} {float(tags[metric]):.4f}"
    description = f"{measured} on {tags['eval.questions']} questions"
    run_id = context.tags.get("plm.pipeline_run_id") or context.tracker.run_id  # the whole run, where there is one
    common = {"run_id": run_id, "tags": dict(tags), "description": description, "await_creation_for": 0}
    try:
        version: str = client.create_model_version(name, source=model.uri, **common).version
        return version
    except MlflowException as error:
        if "://" in model.uri or error.error_code != "INVALID_PARAMETER_VALUE":
            raise
    logged = client.create_logged_model(experiment, name=name, source_run_id=run_id, tags={PLACE_TAG: model.uri})
    client.finalize_logged_model(logged.model_id, "READY")
    source = f"models:/{logged.model_id}"
    version = client.create_model_version(name, source=source, model_id=logged.model_id, **common).version
    return version


def lapse(tracking: TrackingConfig, artifact: Artifact, leads: Callable[[str], bool]) -> str | None:
    """Why a registration must be made again, or None: the registry is no longer as the artifact of this step left it.

    `leads` tells whether there are still files at the URI of a version. The challenger is the model of the last run, so one
    that another run has replaced is registered, and goes through the gate, again. A champion that was moved by hand stays. A
    store that does not answer counts as unchanged.
    """
    from mlflow.exceptions import MlflowException

    registration = artifact.read_json("registration.json")
    name, version = registration["name"], registration["version"]
    if version is None:
        return "the registry was away when it was to be registered"
    gone = f"version {version} of {name} is not in the registry any more"
    if not store_is_there(tracking):
        return gone
    try:
        client = tracking_client(tracking)
        found = client.get_model_version(name, version)
        challenger = version_by_alias(client, name, CHALLENGER)
    except MlflowException as error:
        return gone if error.error_code == "RESOURCE_DOES_NOT_EXIST" else None
    if found.tags.get(MODEL_TAG) != artifact.manifest["inputs"]["model"]["digest"]:
        return gone
    place = found.tags.get(PLACE_TAG)
    if place and not leads(place):
        return f"version {version} of {name} points at {place}, which is not there any more"
    if challenger is None or challenger.version != version:
        return f"version {version} of {name} is not the challenger any more"
    return None


def is_champion(tracking: TrackingConfig, registration: Mapping[str, Any]) -> bool:
    """Whether the champion alias is now on the version of a registration; as it was then where the store is away."""
    if registration["version"] is None:
        return False
    try:
        champion = version_by_alias(tracking_client(tracking), registration["name"], CHAMPION)
    except Exception:  # requests, sqlalchemy and MLflow families
        then: bool = registration["champion"]
        return then
    return champion is not None and champion.version == registration["version"]
