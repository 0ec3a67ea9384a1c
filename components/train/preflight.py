"""What would fail on every rank, found before any of them starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from components.artifacts.artifact import Artifact
from components.errors import UserError
from components.model_files.settings import model_of
from components.shards.reader import INDEX, read_index
from components.train.checkpoints.room import checkpoint_bytes, require_room_for_all
from components.train.data.plan import Cost
from components.train.data.rejected import Rejected
from components.train.data.selection import plan_spec
from components.train.folder import TrainingFolder
from components.train.measure.validation import require_test_split
from components.train.model.assembly import check_settings
from components.train.settings import TrainConfig
from plm_model.family import part

if TYPE_CHECKING:
    from components.train.model.towers import Trainable


def check(
    settings: TrainConfig, shards: Artifact, base: Artifact, world: int, folder: TrainingFolder
) -> list[Rejected]:
    """Raises UserError for settings, data and model that do not fit, or no room for its checkpoints.

    Gives the examples that no pack can hold.
    """
    require_test_split(shards, settings)
    _, left_out = plan_spec(read_index(shards.local(INDEX)), settings, Cost())
    try:
        described = model_of(base)
        model = cast("Trainable", part(described.family, "model").build(described.architecture, "meta"))
        check_settings(model, settings, world)
    except ValueError as error:
        raise UserError(str(error)) from None
    require_room_for_all(folder.checkpoints, checkpoint_bytes(model, settings), settings)
    return left_out


def rejected_line(left_out: list[Rejected]) -> str:
    """The line that tells of examples that no pack can hold."""
    return f"{len(left_out)} examples are too large for a pack, {left_out[0].id} for one"
