"""Room for checkpoints on a local disk: how large one is, and what is free where they would lie.

Worked example: 1,000 parameters that are trained in fp32 with AdamW take 4 bytes for the weight and 4 for each of two
moments, 12,000 bytes in all; to keep two checkpoints while a third is written needs 36,000.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from components.artifacts.files import filesystem
from components.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from components.train.settings import TrainConfig

BESIDE_TENSORS = 2 << 20  # bytes of metadata, state and file headers


def checkpoint_bytes(model: nn.Module, settings: TrainConfig) -> int:
    """The size of one checkpoint of a model whose frozen parameters are marked: weights, two moments, their average."""
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    copies = 3 if settings.ema_decay is None else 4
    return BESIDE_TENSORS + trained * copies * (8 if settings.dtype == "float64" else 4)


def require_room_for_all(uri: str, one: int, settings: TrainConfig) -> None:
    """UserError, with the numbers, where the local disk below `uri` cannot hold what is kept and one that is written.

    Checkpoints that lie there already count as room: they go as new ones come. Object stores are not asked.
    """
    if "://" in uri:
        return
    path = filesystem(uri)[1]
    stay = settings.keep_checkpoints + (settings.publish == "best")
    needed, there = (stay + 1) * one, used_bytes(path)
    free = free_bytes(path)
    if free + there < needed:
        raise UserError(
            f"{path}: {stay} checkpoints and one that is written need {needed:,} bytes ({one:,} each), {free + there:,} are "
            "free. Free some space, lower train.keep_checkpoints, or choose another storage.resume_root"
        )


def used_bytes(path: str) -> int:
    """The bytes of all files below a local folder, 0 where there is none."""
    return sum(file.stat().st_size for file in Path(path).rglob("*") if file.is_file())


def free_bytes(path: str) -> int:
    """What is left on the disk that would hold a local path, which need not exist yet."""
    place = Path(path)
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
