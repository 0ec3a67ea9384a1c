"""From patch features to decoder inputs: a two-layer MLP on every patch, then the mean of each square of patches."""

from __future__ import annotations

import torch
from torch import nn


class Projector(nn.Module):
    """[N, rows * columns, C] -> [N, rows * columns / pool^2, D], row by row."""

    def __init__(self, width: int, dim: int, pool: int) -> None:
        super().__init__()
        self.pool = pool
        self.projector = nn.Sequential(nn.Linear(width, dim), nn.GELU(), nn.Linear(dim, dim))

    def forward(self, x: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        return average_pool(self.projector(x), rows, columns, self.pool)


def average_pool(x: torch.Tensor, rows: int, columns: int, pool: int) -> torch.Tensor:
    """Mean over pool * pool squares of a row-major grid [N, rows * columns, D]; ValueError if the grid does not divide."""
    if rows % pool or columns % pool:
        raise ValueError(f"a grid of {rows} x {columns} patches cannot be pooled by {pool}")
    squares = x.unflatten(1, (rows // pool, pool, columns // pool, pool))
    return squares.mean(dim=(2, 4)).flatten(1, 2)
