"""What the registry calls a version by, and which tags say whose weights it has."""

from __future__ import annotations

from typing import Any

CHALLENGER, CHAMPION, PREVIOUS = "challenger", "champion", "previous_champion"
MODEL_TAG, PLACE_TAG = "plm.model_digest", "plm.model_uri"


def version_by_alias(client: Any, name: str, alias: str) -> Any | None:
    """The version that an alias points to, or None."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
