"""The settings of the model in a checkpoint artifact, without its weights or anything that needs torch."""

from __future__ import annotations

from components.artifacts.artifact import Artifact
from plm_model.config import PLMConfig

NOT_SETTINGS = ("model_type", "format")  # what a config.json has beside the model's settings


def model_config(model: Artifact) -> PLMConfig:
    """The settings in a checkpoint's `config.json`; ConfigError when they are no PLM's."""
    # Not by plm_model.weights: an edit of the model must leave what only prepares its input alone.
    values = model.read_json("config.json")
    return PLMConfig.from_dict({name: value for name, value in values.items() if name not in NOT_SETTINGS})
