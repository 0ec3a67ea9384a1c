"""Which checkpoints stay: the newest ones, and the best one where the best is what the training is to give.

Worked example: steps 10..50 with scores 0.9 0.4 0.6 0.5 0.7, two are kept, the best too: 20, 40 and 50 stay.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence

from components.artifacts.files import filesystem
from components.train.checkpoints.checkpoint import attempts, is_whole, read_state
from components.train.checkpoints.storage import METADATA


def kept(names: Sequence[str], keep: int, scores: Mapping[str, float] | None = None) -> list[str]:
    """Names that stay, of whole checkpoints in the order of their steps. Of equal scores the newest is the best."""
    newest = set(names[-max(keep, 1) :])
    if scores:
        newest.add(max(names, key=lambda name: (-scores[name], name)))
    return [name for name in names if name in newest]


def prune(uri: str, keep: int, keep_best: bool) -> None:
    """Remove the whole checkpoints that need not stay, and what crashes left. Only call while none is being written."""
    names = attempts(uri)
    whole = [name for name in names if is_whole(f"{uri}/{name}")]
    stay = kept(whole, keep, {name: score(f"{uri}/{name}") for name in whole} if keep_best else None)
    for name in sorted(set(names) - set(stay)):
        remove(f"{uri}/{name}")


def best(uri: str) -> str | None:
    """URI of the whole checkpoint with the lowest score."""
    whole = [name for name in attempts(uri) if is_whole(f"{uri}/{name}")]
    if not whole:
        return None
    scores = {name: score(f"{uri}/{name}") for name in whole}
    return f"{uri}/{max(whole, key=lambda name: (-scores[name], name))}"


def score(folder: str) -> float:
    """What a checkpoint is measured by: the validation loss of its step, or its training loss in a run without; or inf."""
    state = read_state(folder)
    found = state.get("score")
    return found if isinstance(found, float) and math.isfinite(found) else math.inf


def remove(folder: str) -> None:
    """Remove a checkpoint. Its metadata goes first, so that a half-removed one is not taken for whole."""
    fs, path = filesystem(folder)
    with contextlib.suppress(FileNotFoundError):
        fs.rm_file(f"{path}/{METADATA}")
    with contextlib.suppress(FileNotFoundError):
        fs.rm(path, recursive=True)
