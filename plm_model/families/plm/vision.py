"""The Perception Encoder: uint8 tiles in, one feature per patch out.

Pre-norm transformer with fused qkv, exact GELU, 2-D RoPE in every block and no norm after the last one. Parameters carry the
names of Meta's releases. Shapes: N tiles, P = rows * columns patches, S = P (+ 1 with a class token), C width, H heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from plm_model.families.plm.settings import VisionConfig
from plm_model.nn.attention import dot_product
from plm_model.nn.recompute import Recompute, run_block
from plm_model.nn.rope import Rotary


class VisionAttention(nn.Module):
    """Every patch of a tile sees every other; `in_proj_weight` [3C, C] holds q, k and v in this order."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.in_proj_weight = nn.Parameter(torch.empty(3 * config.width, config.width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * config.width))
        self.out_proj = nn.Linear(config.width, config.width)

    def forward(self, x: torch.Tensor, rotary: Rotary) -> torch.Tensor:
        """[N, S, C] -> [N, S, C]."""
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = (part.unflatten(-1, (-1, self.head_dim)) for part in qkv.chunk(3, dim=-1))
        q, k, v = (part.transpose(1, 2) for part in (rotary.rotate(q), rotary.rotate(k), v))
        result: torch.Tensor = self.out_proj(dot_product(q, k, v).transpose(1, 2).flatten(-2))
        return result


class VisionMLP(nn.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.width, config.hidden_dim)
        self.c_proj = nn.Linear(config.hidden_dim, config.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.c_proj(F.gelu(self.c_fc(x)))
        return result


class LayerScale(nn.Module):
    """One learned factor per channel on a branch."""

    def __init__(self, width: int, start: float) -> None:
        super().__init__()
        self.start = start
        self.gamma = nn.Parameter(torch.full((width,), start))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gamma


class VisionBlock(nn.Module):
    """Attention and MLP branches, each normalised before, scaled after and dropped for whole tiles while training.

    `recompute` says what is computed again in the backward pass instead of being kept.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.recompute: Recompute = "none"
        self.random = False  # whether a module inside, such as an adapter, draws random numbers
        self.drop_path = config.drop_path
        self.ln_1 = nn.LayerNorm(config.width, eps=1e-5)
        self.attn = VisionAttention(config)
        self.ln_2 = nn.LayerNorm(config.width, eps=1e-5)
        self.mlp = VisionMLP(config)
        start = config.layer_scale_init
        self.ls_1 = nn.Identity() if start is None else LayerScale(config.width, start)
        self.ls_2 = nn.Identity() if start is None else LayerScale(config.width, start)

    def forward(self, x: torch.Tensor, rotary: Rotary) -> torch.Tensor:
        """[N, S, C] -> [N, S, C]."""
        return run_block(self.run, self.recompute, self.random or self.drops, x, rotary)

    def run(self, x: torch.Tensor, rotary: Rotary) -> torch.Tensor:
        x = x + self.drop(self.ls_1(self.attn(self.ln_1(x), rotary)))
        return x + self.drop(self.ls_2(self.mlp(self.ln_2(x))))

    @property
    def drops(self) -> bool:
        """Whether branches are dropped now."""
        return self.training and self.drop_path > 0.0

    def drop(self, branch: torch.Tensor) -> torch.Tensor:
        """Zero the branch of whole tiles at the configured rate and scale up the others, in training only."""
        if not self.drops:
            return branch
        keep = 1.0 - self.drop_path
        kept = branch.new_empty(branch.shape[0], 1, 1).bernoulli_(keep)
        return branch * kept / keep


class VisionStack(nn.Module):
    """The blocks, under the name that the released checkpoints give them."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(VisionBlock(config) for _ in range(config.layers))


class VisionTransformer(nn.Module):
    """The whole tower."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.conv1 = nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size, bias=False)
        if config.use_cls_token:
            self.class_embedding = nn.Parameter(torch.zeros(config.width))
        positions = config.grid**2 + int(config.use_cls_token)
        self.positional_embedding = nn.Parameter(torch.zeros(positions, config.width))
        self.ln_pre = nn.LayerNorm(config.width, eps=1e-5)
        self.transformer = VisionStack(config)

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        """uint8 [N, 3, H, W], sides multiples of the patch -> features [N, (H / patch) * (W / patch), C] row by row."""
        rows, columns = (side // self.config.patch_size for side in tiles.shape[-2:])
        x = self.embed(patches(tiles, self.config.patch_size))
        x = self.ln_pre(x + self.positions(rows, columns))
        rotary = vision_rotary(rows, columns, self.config.head_dim, self.config.use_cls_token, tiles.device)
        for block in self.transformer.resblocks:
            x = block(x, rotary)
        features: torch.Tensor = x[:, 1:] if self.config.use_cls_token else x
        return features

    def embed(self, raw: torch.Tensor) -> torch.Tensor:
        """uint8 [N, P, 3 * patch^2] -> [N, S, C]; stride equals patch, so the convolution is one matrix product."""
        weight = self.conv1.weight.flatten(1)
        x = F.linear(normalise(raw, weight.dtype), weight)
        if not self.config.use_cls_token:
            return x
        return torch.cat((self.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1), x), dim=1)

    def positions(self, rows: int, columns: int) -> torch.Tensor:
        """Absolute position embedding [S, C], patches interpolated bilinearly when the tile's grid is another one."""
        grid, table = self.config.grid, self.positional_embedding
        if (rows, columns) == (grid, grid):
            return table
        own, patch = table.split([len(table) - grid**2, grid**2])
        plane = patch.float().T.reshape(1, -1, grid, grid)
        plane = F.interpolate(plane, size=(rows, columns), mode="bilinear", align_corners=False)
        return torch.cat((own, plane.flatten(2)[0].T.to(table.dtype)))


def patches(tiles: torch.Tensor, size: int) -> torch.Tensor:
    """Cut [N, 3, H, W] into row-major patches [N, (H / size) * (W / size), 3 * size^2]; ValueError for other sides."""
    if tiles.shape[-2] % size or tiles.shape[-1] % size:
        raise ValueError(f"tiles of {tiles.shape[-2]} x {tiles.shape[-1]} pixels do not divide into patches of {size}")
    grid = tiles.unflatten(3, (-1, size)).unflatten(2, (-1, size))  # N, 3, rows, size, columns, size
    cut: torch.Tensor = grid.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    return cut


def normalise(raw: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """uint8 0..255 -> -1..1, computed in at least fp32 and returned in `dtype`."""
    wide = raw.to(torch.promote_types(dtype, torch.float32))
    return ((wide / 255 - 0.5) / 0.5).to(dtype)


VISION_THETA = 10000.0


def vision_rotary(rows: int, columns: int, head_dim: int, class_token: bool, device: torch.device | str) -> Rotary:
    """The tower's 2-D rotation for row-major patches: the first half of a head turns with x, the second with y.

    With a class token, it comes first at angle 0 and the patches count from 1 on both axes; without one they count from 0.
    """
    exponents = torch.arange(0, head_dim // 2, 2, dtype=torch.float32, device=device) / (head_dim // 2)
    frequencies = 1.0 / VISION_THETA**exponents
    first = 1 if class_token else 0
    y = torch.arange(first, first + rows, device=device).repeat_interleave(columns)
    x = torch.arange(first, first + columns, device=device).repeat(rows)
    angles = torch.cat((torch.outer(x.float(), frequencies), torch.outer(y.float(), frequencies)), dim=-1)
    if class_token:
        angles = torch.cat((angles.new_zeros(1, head_dim // 2), angles))
    return Rotary(angles)


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
    means: torch.Tensor = squares.mean(dim=(2, 4)).flatten(1, 2)
    return means
