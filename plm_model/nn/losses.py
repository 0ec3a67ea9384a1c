"""Cross entropy at the supervised positions, with few logits alive."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

Scores = Callable[[torch.Tensor], torch.Tensor]  # rows [n, D] -> [n, V]


CHUNK_ROWS = 1024


def chunked_losses(rows: torch.Tensor, targets: torch.Tensor, scores: Scores, chunk: int) -> torch.Tensor:
    """Cross entropy of each of n rows against its target, with the logits of at most `chunk` rows alive: [n].

    With more than one chunk the logits are computed again in the backward pass instead of being kept.
    """
    pieces = list(zip(rows.split(chunk), targets.split(chunk), strict=True))
    if len(pieces) == 1 or not torch.is_grad_enabled():
        return torch.cat([row_losses(r, t, scores) for r, t in pieces])
    return torch.cat([checkpoint(row_losses, r, t, scores, use_reentrant=False) for r, t in pieces])


def row_losses(rows: torch.Tensor, targets: torch.Tensor, scores: Scores) -> torch.Tensor:
    return F.cross_entropy(scores(rows), targets, reduction="none")
