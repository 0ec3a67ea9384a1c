"""Answers grow by one token per row and step, from keys and values that are written in place and never moved.

A step repeats the arithmetic of `DecoderLayer` in as few operations as it takes: on a CPU, and for a small batch on a GPU,
starting operations costs more than what they compute. A test holds the two equal.

Worked example: prompts of 3 and 5 tokens and room for 4 more give 9 slots a row. The first new keys go to slot 3 of row 0 and
slot 5 of row 1, which are the places 3 and 14 of both rows laid end to end; a mask hides slots 4 and 5 from row 0.

Shapes: R rows, D model width, H heads and K key heads of width W.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from plm_model.attention import dot_product
from plm_model.decoder import DecoderLayer, RMSNorm
from plm_model.plm import PLM
from plm_model.rope import decoder_rotary


class Cache:
    """Keys and values of every layer, [layers, R, slots, K, W], with room for `room` tokens after prompts of `lengths`."""

    def __init__(self, model: PLM, lengths: Sequence[int], room: int) -> None:
        decoder, weight = model.config.decoder, model.tok_embeddings.weight
        self.slots, self.longest = max(lengths) + room, max(lengths)
        shape = (decoder.layers, len(lengths), self.slots, decoder.kv_heads, decoder.head_dim)
        self.keys = torch.zeros(shape, dtype=weight.dtype, device=weight.device)
        self.values = torch.zeros_like(self.keys)
        used = torch.tensor(lengths)
        self.next = (torch.arange(len(lengths)) * self.slots + used).to(weight.device)
        self.mask = None
        if len(set(lengths)) > 1:  # rows of one length need no mask: all of what is cached is theirs
            hidden = torch.arange(self.slots)[None] >= used[:, None]
            empty = torch.zeros(hidden.shape, dtype=weight.dtype).masked_fill_(hidden, float("-inf"))
            self.mask = empty.to(weight.device)[:, None, None]

    def store(self, layer: int, places: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
        """Put k and v [n, K, W] at places, row * slots + slot [n]."""
        self.keys[layer].flatten(0, 1).index_copy_(0, places, k)
        self.values[layer].flatten(0, 1).index_copy_(0, places, v)

    def admit(self) -> torch.Tensor | None:
        """Count one more slot of each row as used: the mask [R, 1, 1, used] of what each row's next token sees."""
        self.longest += 1
        if self.mask is None:
            return None
        self.mask.view(-1).index_fill_(0, self.next, 0.0)
        return self.mask[..., : self.longest]


class Step:
    """`step(tokens)`: one token per row through the decoder, given a cache of what came before."""

    def __init__(self, model: PLM, cache: Cache, pos: torch.Tensor) -> None:
        """`pos` int64 [R]: the position of each row's next token."""
        self.model, self.cache, self.pos = model, cache, pos.clone()
        positions = torch.arange(int(pos.max()) + cache.slots - cache.longest, device=pos.device)
        self.turns = decoder_rotary(model.config.decoder, positions).turns
        self.layers = [StepLayer(layer) for layer in model.layers]

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """int64 [R] -> scores of the next tokens, at least fp32 [R, V]."""
        cache, turns = self.cache, self.turns.index_select(0, self.pos)
        mask = cache.admit()
        h = self.model.tok_embeddings(tokens)
        for number, layer in enumerate(self.layers):
            h = layer(h, turns, cache, number, mask)
        cache.next.add_(1)
        self.pos.add_(1)
        return self.model.head(h)


class StepLayer:
    """A decoder layer for one token per row, with the layer's own weights."""

    def __init__(self, layer: DecoderLayer) -> None:
        attention, forward = layer.attention, layer.feed_forward
        self.head_dim = attention.head_dim
        self.norms = StepNorm(layer.attention_norm), StepNorm(layer.ffn_norm)
        self.wq, self.wk, self.wv, self.wo = map(product, (attention.wq, attention.wk, attention.wv, attention.wo))
        self.w1, self.w2, self.w3 = map(product, (forward.w1, forward.w2, forward.w3))

    def __call__(
        self, h: torch.Tensor, turns: torch.Tensor, cache: Cache, number: int, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """[R, D] -> [R, D]; the layer's keys and values of these tokens are cached."""
        rows, width = len(h), self.head_dim
        x = self.norms[0](h)
        q = turned(self.wq(x).view(rows, -1, width), turns)
        k = turned(self.wk(x).view(rows, -1, width), turns)
        cache.store(number, cache.next, k, self.wv(x).view(rows, -1, width))
        keys, values = (kept[number, :, : cache.longest].transpose(1, 2) for kept in (cache.keys, cache.values))
        # The queries that share a key head stand as its positions: no back end needs to repeat keys or know of groups.
        seen = dot_product(q.view(rows, keys.shape[1], -1, width), keys, values, mask=mask)
        h = h + self.wo(seen.reshape(rows, -1))
        x = self.norms[1](h)
        return h + self.w2(F.silu(self.w1(x)).mul_(self.w3(x)))


class StepNorm:
    """An RMSNorm; on a CPU, where torch makes it of ten operations, in five."""

    def __init__(self, norm: RMSNorm) -> None:
        self.norm, self.weight = norm, norm.weight.detach()
        self.few = self.weight.device.type == "cpu" and self.weight.dtype in (torch.float32, torch.float64)
        self.eps = self.weight.new_full((1, 1), norm.eps)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if not self.few:
            return self.norm(x)
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return (x * torch.addcmul(self.eps, length, length, value=1 / x.shape[-1]).rsqrt_()).mul_(self.weight)


def product(linear: nn.Linear) -> Callable[[torch.Tensor], torch.Tensor]:
    """`linear`; where it is no more than a matrix product, without what a module's call costs."""
    return partial(torch.mm, mat2=linear.weight.detach().t()) if type(linear) is nn.Linear else linear


def turned(x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """`Rotary.rotate`, in place where x [R, heads, W] is wide enough."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    torch.view_as_complex(wide.view(*wide.shape[:-1], -1, 2)).mul_(turns)
    return wide.to(x.dtype)
