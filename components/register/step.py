"""Register the model: every one becomes the challenger, and the champion only where the gate says so.

A version refers to the model's artifact by URI; no weights are copied. Its tags hold the evidence (data, config, commit,
metrics, links), and registering the same model with the same comparison again finds the version that is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from components.artifacts.artifact import Artifact, ArtifactWriter
from components.artifacts.context import StepContext
from components.errors import UserError
from components.register.gate import CHALLENGER, MODEL_TAG, PLACE_TAG, Registration, alone, promote
from components.register.registry import (
    COMPARISON_TAG,
    RegistryAwayError,
    create_version,
    ensure_model,
    find_version,
    registry,
)
from components.register.settings import RegisterSettings
from components.tracking.runs import state_dir


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
