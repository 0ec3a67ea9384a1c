"""One layer of the Llama decoder: RMSNorm, grouped-query attention, SwiGLU, no biases.

Parameters carry the names and layout of Meta's releases (queries and keys rotate in interleaved pairs).
Shapes: T positions of a pack, D model width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from plm_model.nn.attention import Attend
from plm_model.nn.config import DecoderConfig
from plm_model.nn.recompute import Recompute, run_block
from plm_model.nn.rope import Rotary


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension; the statistics are fp32 whatever the dtype."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Attention(nn.Module):
    """Projections around an attention function that is given by the caller (a pack's plan, or a cache)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.wq = nn.Linear(config.dim, config.heads * config.head_dim, bias=False)
        self.wk = nn.Linear(config.dim, config.kv_heads * config.head_dim, bias=False)
        self.wv = nn.Linear(config.dim, config.kv_heads * config.head_dim, bias=False)
        self.wo = nn.Linear(config.heads * config.head_dim, config.dim, bias=False)

    def forward(self, x: torch.Tensor, rotary: Rotary, attend: Attend) -> torch.Tensor:
        """[T, D] -> [T, D]."""
        q, k, v = (project(x).unflatten(-1, (-1, self.head_dim)) for project in (self.wq, self.wk, self.wv))
        result: torch.Tensor = self.wo(attend(rotary.rotate(q), rotary.rotate(k), v).flatten(-2))
        return result


class FeedForward(nn.Module):
    """SwiGLU: w2(silu(w1 x) * w3 x)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.dim, config.hidden_dim, bias=False)
        self.w3 = nn.Linear(config.dim, config.hidden_dim, bias=False)
        self.w2 = nn.Linear(config.hidden_dim, config.dim, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.w2(F.silu(self.w1(x)) * self.w3(x))
        return result


class DecoderLayer(nn.Module):
    """Attention, then feed-forward, each on the normalised stream and added to it.

    `recompute` says what is computed again in the backward pass instead of being kept.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.recompute: Recompute = "none"
        self.random = False  # whether a module inside, such as an adapter, draws random numbers
        self.attention_norm = RMSNorm(config.dim, config.norm_eps)
        self.attention = Attention(config)
        self.ffn_norm = RMSNorm(config.dim, config.norm_eps)
        self.feed_forward = FeedForward(config)

    def forward(self, x: torch.Tensor, rotary: Rotary, attend: Attend) -> torch.Tensor:
        """[T, D] -> [T, D]."""
        return run_block(self.run, self.recompute, self.random, x, rotary, attend)

    def run(self, x: torch.Tensor, rotary: Rotary, attend: Attend) -> torch.Tensor:
        x = x + self.attention(self.attention_norm(x), rotary, attend)
        result: torch.Tensor = x + self.feed_forward(self.ffn_norm(x))
        return result
