"""Answers grow by one token per row and step, from keys and values that are written in place and never moved.

A step repeats the arithmetic of `DecoderLayer` in as few operations as it takes: on a CPU, and for a small batch on a GPU,
starting operations costs more than what they compute. A test holds the two equal.

Worked example: prompts of 3 and 5 tokens and room for 4 more give 9 slots a row. The first new keys go to slot 3 of row 0 and
slot 5 of row 1, which are the places 3 and 14 of both rows laid end to end; a mask hides slots 4 and 5 from row 0.

Shapes: R rows, D model width, H heads and K key heads of width W.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from plm_model.families.plm.model import PLM
from plm_model.nn.attention import dot_product
from plm_model.nn.decoder import DecoderLayer, RMSNorm
from plm_model.nn.rope import decoder_rotary


class Cache:
    """Keys and values of every layer, [layers, R, slots, 2 K, W], with room for `room` tokens after the prompts."""

    def __init__(self, model: PLM, lengths: Sequence[int], room: int) -> None:
        decoder, weight = model.config.decoder, model.tok_embeddings.weight
        self.slots, self.longest = max(lengths) + room, max(lengths)
        shape = (decoder.layers, len(lengths), self.slots, 2 * decoder.kv_heads, decoder.head_dim)
        self.kept = torch.zeros(shape, dtype=weight.dtype, device=weight.device)
        used = torch.tensor(lengths)
        self.next = (torch.arange(len(lengths)) * self.slots + used).to(weight.device)
        self.mask = None
        if len(set(lengths)) > 1:  # rows of one length need no mask: all of what is cached is theirs
            hidden = torch.arange(self.slots)[None] >= used[:, None]
            empty = torch.zeros(hidden.shape, dtype=weight.dtype).masked_fill_(hidden, float("-inf"))
            self.mask = empty.to(weight.device)[:, None, None]

    def places(self, layer: int) -> torch.Tensor:
        """Every slot of a layer by its place, row * slots + slot: [R * slots, 2 K, W]."""
        return self.kept[layer].flatten(0, 1)

    def store(self, layer: int, places: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
        """Put k and v [n, K, W] at places [n]."""
        for part, new in zip(self.places(layer).chunk(2, dim=1), (k, v), strict=True):
            part.index_copy_(0, places, new)

    def keys_values(self, layer: int) -> tuple[torch.Tensor, ...]:
        """Keys and values of a layer as attention takes them: [R, K, slots, W] each."""
        return self.kept[layer].transpose(1, 2).chunk(2, dim=1)

    def admit(self) -> torch.Tensor | None:
        """Count one more slot of each row as used: the mask [R, 1, 1, used] of what each row's next token sees."""
        self.longest += 1
        if self.mask is None:
            return None
        self.mask.view(-1).index_fill_(0, self.next, 0.0)
        return self.mask[..., : self.longest]


class DecodingStep:
    """`step(tokens)`: one token per row through the decoder, given a cache of what came before."""

    def __init__(self, model: PLM, cache: Cache, pos: torch.Tensor) -> None:
        """`pos` int64 [R]: the position of each row's next token."""
        self.model, self.cache, self.pos = model, cache, pos.clone()
        positions = torch.arange(int(pos.max()) + cache.slots - cache.longest, device=pos.device)
        self.turns = decoder_rotary(model.config.decoder, positions).turns
        self.heads = Heads(model, len(pos))
        layers: Iterable[Any] = model.layers  # a list of modules does not say of which
        self.layers = [StepLayer(layer, self.heads, cache, number) for number, layer in enumerate(layers)]

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """int64 [R] -> scores of the next tokens, at least fp32 [R, V]."""
        turns, mask = self.turns.index_select(0, self.pos), self.cache.admit()
        h = self.model.tok_embeddings(tokens)
        for layer in self.layers:
            h = layer(h, turns, mask)
        self.cache.next.add_(1)
        self.pos.add_(1)
        return self.model.head(h)


class Heads:
    """Where every layer puts its queries, keys and values, [R, H + 2 K, W], and what is looked at in it."""

    def __init__(self, model: PLM, rows: int) -> None:
        decoder, weight = model.config.decoder, model.tok_embeddings.weight
        heads, kv, width = decoder.heads, decoder.kv_heads, decoder.head_dim
        whole = torch.empty(rows, heads + 2 * kv, width, dtype=weight.dtype, device=weight.device)
        self.q, self.k, self.v = (part.flatten(1) for part in whole.split([heads, kv, kv], dim=1))
        # The queries that share a key head stand as its positions: no back end needs to repeat keys or know of groups.
        self.queries = whole[:, :heads].unflatten(1, (kv, -1))
        self.turned, self.new = whole[:, : heads + kv], whole[:, heads:]
        wide = weight.dtype in (torch.float32, torch.float64)
        self.pairs = torch.view_as_complex(self.turned.unflatten(-1, (-1, 2))) if wide else None

    def turn(self, turns: torch.Tensor) -> None:
        """`Rotary.rotate` of queries and keys, in place."""
        if self.pairs is not None:
            self.pairs.mul_(turns)
        else:
            pairs = torch.view_as_complex(self.turned.float().unflatten(-1, (-1, 2)))
            self.turned.copy_(torch.view_as_real(pairs * turns).flatten(-2))


class StepLayer:
    """A decoder layer for one token per row, with the layer's own weights."""

    def __init__(self, layer: DecoderLayer, heads: Heads, cache: Cache, number: int) -> None:
        attention, forward = layer.attention, layer.feed_forward
        self.heads, self.cache = heads, cache
        self.places, (self.keys, self.values) = cache.places(number), cache.keys_values(number)
        self.norms = StepNorm(layer.attention_norm), StepNorm(layer.ffn_norm)
        self.wq, self.wk = product(attention.wq, heads.q), product(attention.wk, heads.k)
        self.wv, self.wo = product(attention.wv, heads.v), product(attention.wo)
        self.w1, self.w2, self.w3 = map(product, (forward.w1, forward.w2, forward.w3))

    def __call__(self, h: torch.Tensor, turns: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """[R, D] -> [R, D]; the layer's keys and values of these tokens are cached."""
        x = self.norms[0](h)
        self.wq(x), self.wk(x), self.wv(x)
        self.heads.turn(turns)
        self.places.index_copy_(0, self.cache.next, self.heads.new)
        used = self.cache.longest
        seen = dot_product(self.heads.queries, self.keys[:, :, :used], self.values[:, :, :used], mask=mask)
        h = h + self.wo(seen.flatten(1))
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
            result: torch.Tensor = self.norm(x)
            return result
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return (x * torch.addcmul(self.eps, length, length, value=1 / x.shape[-1]).rsqrt_()).mul_(self.weight)


def product(linear: nn.Linear, out: torch.Tensor | None = None) -> Callable[[torch.Tensor], torch.Tensor]:
    """`linear`, into `out` if given; where it is no more than a matrix product, without what a module's call costs."""
    if type(linear) is nn.Linear:
        return partial(torch.mm, mat2=linear.weight.detach().t(), out=out)
    return linear if out is None else lambda x: out.copy_(linear(x))
