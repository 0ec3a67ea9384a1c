"""Register the model: every one becomes the challenger, and the champion only where the gate says so.

A version refers to the model's artifact by URI; no weights are copied. Its tags hold the evidence (data, config, commit,
metrics, links), and registering the same model with the same comparison again finds the version that is there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from components.artifacts.artifact import Artifact, ArtifactWriter
from components.artifacts.context import StepContext
from components.errors import UserError
from components.register.gate import (
    CHALLENGER,
    CHAMPION,
    MODEL_TAG,
    PLACE_TAG,
    Registration,
    alone,
    promote,
    version_by_alias,
)
from components.register.settings import RegisterSettings
from components.tracking.runs import open_tracking, state_dir, store_is_there, tracking_client
from components.tracking.settings import TrackingConfig

COMPARISON_TAG = "plm.comparison_digest"


class RegistryAwayError(Exception):
    """The tracking store does not answer."""


def run(settings: RegisterSettings, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StepContext) -> None:
    """Inputs: model, comparison. Writes registration.json; an outage of a tracking store that was there is only noted."""
    comparison = inputs["comparison"].read_json("comparison.json")
    if comparison["metric"] != settings.gate.metric:
        raise UserError(
            f"gate.metric: {settings.gate.metric}: is not measured; this pipeline compares {comparison['metric']}"
        )
    try:
        registration = register(settings, inputs, comparison, context)
    except RegistryAwayError as error:
        if settings.tracking.required and not (context.tracker.run_id or context.tags.get("plm.pipeline_run_id")):
            raise UserError(str(error)) from None
        registration = Registration(settings.name, None, False, f"not registered: {error}")
    else:
        context.tracker.tag("plm.registered_model_version", f"{registration.name}/{registration.version}")
    out.write_json("registration.json", asdict(registration))
    context.progress(registration.reason)


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


def register(
    settings: RegisterSettings,
    inputs: Mapping[str, Artifact],
    comparison: Mapping[str, Any],
    context: StepContext,
) -> Registration:
    """Find or create the version, make it the challenger, and let the gate decide about the champion."""
    tags, name = evidence(inputs, comparison, context), settings.name
    with registry(settings.tracking) as (client, experiment):
        ensure_model(client, name)
        version = find_version(client, name, tags)
        if version is None:
            version = create_version(client, experiment, name, inputs["model"], tags, context)
        with alone(state_dir(settings.tracking), name):
            client.set_registered_model_alias(name, CHALLENGER, version)
            return promote(client, name, version, settings.gate, comparison, tags)


def evidence(inputs: Mapping[str, Artifact], comparison: Mapping[str, Any], context: StepContext) -> dict[str, str]:
    """The tags of a version: what it was made of, how it did, and where to look."""
    model, compared = inputs["model"], inputs["comparison"]
    metric = comparison["metric"]
    tags = {
        "plm.data_digest": compared.manifest["inputs"].get("dataset", {}).get("digest", ""),
        **context.tags,
        MODEL_TAG: model.digest,
        COMPARISON_TAG: compared.digest,
        "plm.model_key": model.key,
        PLACE_TAG: model.uri,
        "plm.report_uri": f"{compared.uri}/report.html",
        f"metric/{metric}": repr(comparison["after"]),
        f"metric/{metric}.before": repr(comparison["before"]),
        f"metric/{metric}.gain": repr(comparison["gain"]),
        f"metric/{metric}.gain_ci": f"{comparison['ci_low']:.4f} to {comparison['ci_high']:.4f}",
        "eval.questions": str(comparison["n"]),
        "eval.limit": "" if comparison.get("limit") is None else str(comparison["limit"]),
    }
    if context.tracker.run_id:
        tags["mlflow.run_id"] = context.tracker.run_id
    return {key: str(value) for key, value in tags.items() if str(value)}


def ensure_model(client: Any, name: str) -> None:
    """Create the registered model where it is missing."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description="Made by PLM Pipeline; each version is one training run.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def find_version(client: Any, name: str, tags: Mapping[str, str]) -> str | None:
    """The version of the same model, at the same place, with the same comparison, if there is one."""
    for version in client.search_model_versions(f"name = '{name}'"):
        if all(version.tags.get(key) == tags[key] for key in (MODEL_TAG, COMPARISON_TAG, PLACE_TAG)):
            found: str = version.version
            return found
    return None


def create_version(
    client: Any, experiment: str, name: str, model: Artifact, tags: Mapping[str, str], context: StepContext
) -> str:
    """A new version whose source is the artifact's URI.

    An MLflow server refuses sources on a local disk; there the source is a logged model, and the tag `plm.model_uri` says
    where it lies.
    """
    from mlflow.exceptions import MlflowException

    metric = next(key for key in tags if key.startswith("metric/"))
    description = (
        f"{metric.removeprefix('metric/')} {float(tags[metric]):.4f} on {tags['eval.questions']} held-out rows"
    )
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
