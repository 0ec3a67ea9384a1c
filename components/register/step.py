"""Register the model: every one becomes the challenger, and the champion only where the gate says so.

A version refers to the model's artifact by URI; no weights are copied. Its tags hold the evidence (data, config, commit,
metrics, links): the same weights registered again are the version that is there, with the evidence of their last comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from components.artifacts.artifact import Artifact, ArtifactWriter
from components.artifacts.context import StepContext
from components.errors import UserError
from components.register.aliases import CHALLENGER, MODEL_TAG, PLACE_TAG
from components.register.gate import Candidate, Registration, alone, promote
from components.register.registry import (
    RegistryAwayError,
    create_version,
    ensure_model,
    find_version,
    registry,
    update_evidence,
)
from components.register.settings import RegisterSettings
from components.tracking.runs import state_dir


def run(settings: RegisterSettings, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StepContext) -> None:
    """Inputs: model, comparison. Writes registration.json; an outage of a tracking store that was there is only noted."""
    comparison = inputs["comparison"].read_json("comparison.json")
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
        else:
            update_evidence(client, name, version, tags)
        with alone(state_dir(settings.tracking), name):
            client.set_registered_model_alias(name, CHALLENGER, version)
            candidate = Candidate(
                version,
                tags,
                comparison,
                inputs["model"].manifest["bytes"],
                inputs["comparison"].counts.get("seconds_per_answer"),
            )
            return promote(client, name, settings.gate, candidate)


def evidence(inputs: Mapping[str, Artifact], comparison: Mapping[str, Any], context: StepContext) -> dict[str, str]:
    """The tags of a version: what it was made of, how it did, and where to look."""
    model, compared = inputs["model"], inputs["comparison"]
    tags = {
        "plm.data_digest": compared.manifest["inputs"].get("dataset", {}).get("digest", ""),
        **context.tags,
        MODEL_TAG: model.digest,
        "plm.comparison_digest": compared.digest,
        "plm.model_key": model.key,
        PLACE_TAG: model.uri,
        "plm.report_uri": f"{compared.uri}/report.html",
        **measured(comparison),
    }
    if context.tracker.run_id:
        tags["mlflow.run_id"] = context.tracker.run_id
    return {key: str(value) for key, value in tags.items() if str(value)}


def measured(comparison: Mapping[str, Any]) -> dict[str, str]:
    """The figures of every task, `metric/TASK/METRIC` and what stands beside it, and how many questions there were."""
    tags: dict[str, str] = {}
    for task, values in comparison["tasks"].items():
        name = f"metric/{task}/{values['metric']}"
        if values["not_measured"] is not None:
            tags[f"{name}.not_measured"] = values["not_measured"]
            continue
        tags |= {
            name: repr(values["after"]),
            f"{name}.before": repr(values["before"]),
            f"{name}.gain": repr(values["gain"]),
            f"{name}.gain_ci": f"{values['ci_low']:.4f} to {values['ci_high']:.4f}",
        }
    main = comparison["tasks"][comparison["main"]]
    limit = main.get("limit")
    return tags | {"eval.questions": str(main.get("n", 0)), "eval.limit": "" if limit is None else str(limit)}
