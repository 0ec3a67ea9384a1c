"""How long a training is: `train.epochs` becomes `train.steps` as soon as the shards are known."""

from __future__ import annotations

from dataclasses import replace

from components.artifacts.artifact import Artifact
from components.shards.reader import INDEX, read_index
from components.train.data.plan import Cost, steps_of_epochs
from components.train.data.selection import plan_spec
from components.train.settings import TrainConfig


def counted_in_steps(settings: TrainConfig, shards: Artifact) -> TrainConfig:
    """The same settings with steps; the same data give the same steps on every machine, whatever a pack costs there."""
    if settings.epochs is None:
        return settings
    spec, _ = plan_spec(read_index(shards.local(INDEX)), settings, Cost())
    return replace(settings, steps=steps_of_epochs(spec, settings.epochs), epochs=None)
