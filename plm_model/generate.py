"""Answers to a batch of prompts: one packed pass over all of them, then one token per row and step from a key-value cache.

A prompt's answer does not depend on its company: prompts of other lengths and media give in one batch what each gives
alone. The packed pass has no padding. The cache is [rows, kv_heads, slots, head_dim], row r using its first `lengths[r]` slots.

Worked example: prompts of 3 and 5 tokens and 4 new tokens give a cache of 9 slots; the first new keys go to slot 3 of row 0
and slot 5 of row 1, and a mask hides what lies behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from plm_model.attention import Attend, AttentionPlan, attend, dot_product
from plm_model.pack import collate
from plm_model.plm import PLM

if TYPE_CHECKING:
    from plm_model.codec import Example
    from plm_model.tokenizer import Tokenizer


OnText = Callable[[int, str, bool], None]  # a row's number, its text so far, whether that is all


@dataclass(frozen=True)
class GenerationOptions:
    """How to answer. `temperature` 0 takes the likeliest token; above it, `top_k` and then `top_p` narrow the choice.

    An answer ends at one of the tokenizer's stop ids, at a `stop` string (cut off), or after `max_new_tokens`. Each
    row draws from its own generator seeded with `seed`. ValueError when a value is out of range.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float | None = None
    top_k: int | None = None
    stop: Sequence[str] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}; it must be at least 1")
        if self.temperature < 0:
            raise ValueError(f"temperature is {self.temperature}; it must not be negative")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k is {self.top_k}; it must be at least 1")
        if isinstance(self.stop, str) or "" in self.stop:
            raise ValueError("stop must be a list of strings that are not empty")


@dataclass(frozen=True)
class Generation:
    """One answer: its text, its ids without the one that stopped it, and why it ended ("stop" or "length")."""

    text: str
    token_ids: list[int]
    finish_reason: str


@dataclass
class Row:
    """An answer while it grows."""

    generator: torch.Generator
    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    finish_reason: str = ""


class Cache:
    """Keys and values of every layer, [rows, kv_heads, slots, head_dim], and how many slots each row uses."""

    def __init__(self, model: PLM, lengths: torch.Tensor, slots: int) -> None:
        decoder, weight = model.config.decoder, model.tok_embeddings.weight
        shape = (decoder.layers, len(lengths), decoder.kv_heads, slots, decoder.head_dim)
        self.keys = torch.zeros(shape, dtype=weight.dtype, device=weight.device)
        self.values = torch.zeros_like(self.keys)
        self.lengths = lengths
        self.rows = torch.arange(len(lengths), device=weight.device)

    def store(self, layer: int, rows: torch.Tensor, slots: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
        """Put k and v [n, kv_heads, head_dim] at (row, slot) pairs."""
        self.keys[layer][rows, :, slots] = k
        self.values[layer][rows, :, slots] = v


@torch.no_grad()
def generate(
    model: PLM,
    tokenizer: Tokenizer,
    prompts: Sequence[tuple[Example, np.ndarray]],
    options: GenerationOptions = GenerationOptions(),
    on_text: OnText | None = None,
) -> list[Generation]:
    """Answer prompts (an encoded prompt and its tiles, uint8 [tiles, 3, H, W]) as one batch, in their order.

    `on_text` is told of every row that grew after each step; until a row ends, its last characters may still change.
    ValueError when a prompt leaves no room in the decoder's `max_seq_len`, or when its tiles do not fit its placeholders.
    """
    if not prompts:
        return []
    limits = [room(model, example, options) for example, _ in prompts]
    was_training = model.training
    model.eval()
    try:
        rows = [Row(torch.Generator().manual_seed(options.seed)) for _ in prompts]
        run(model, tokenizer, prompts, rows, limits, options, on_text)
    finally:
        model.train(was_training)
    return [Generation(row.text, row.token_ids, row.finish_reason) for row in rows]


def room(model: PLM, example: Example, options: GenerationOptions) -> int:
    """How many tokens may follow a prompt."""
    longest = model.config.decoder.max_seq_len
    if example.length >= longest:
        raise ValueError(f"a prompt of {example.length} tokens leaves no room in the model's {longest}")
    return min(options.max_new_tokens, longest - example.length)


def run(
    model: PLM,
    tokenizer: Tokenizer,
    prompts: Sequence[tuple[Example, np.ndarray]],
    rows: list[Row],
    limits: list[int],
    options: GenerationOptions,
    on_text: OnText | None,
) -> None:
    """Fill the rows, a token each and step, until the last of them has ended."""
    scores, cache, pos = prefill(model, prompts, max(limits))
    while True:
        tokens = [choose(score, row.generator, options) for score, row in zip(scores.cpu(), rows, strict=True)]
        for number, (row, token, limit) in enumerate(zip(rows, tokens, limits, strict=True)):
            if row.finish_reason:
                continue
            extend(row, token, limit, tokenizer, options)
            if on_text is not None:
                on_text(
                    number, row.text if row.finish_reason else tokenizer.decode(row.token_ids), bool(row.finish_reason)
                )
        if all(row.finish_reason for row in rows):
            return
        scores = step(model, torch.tensor(tokens, device=pos.device), pos, cache)
        pos = pos + 1


def prefill(
    model: PLM, prompts: Sequence[tuple[Example, np.ndarray]], new_tokens: int
) -> tuple[torch.Tensor, Cache, torch.Tensor]:
    """Run all prompts as one pack: scores of each row's first new token [rows, V], the filled cache, that token's position."""
    examples, tiles = zip(*prompts, strict=True)
    batch = collate(examples, tiles, model.config)
    if not any(len(media) for media in tiles):
        batch = replace(batch, tiles=batch.tiles[:0])
    layout = model.lay_out(batch)
    lengths = torch.tensor([example.length for example in examples])
    ends = (lengths.cumsum(0) - 1).to(layout.pos.device)
    rows = (batch.doc - 1).to(layout.pos.device)
    slots = torch.cat([torch.arange(length) for length in lengths]).to(layout.pos.device)
    cache = Cache(model, lengths.to(layout.pos.device), int(lengths.max()) + new_tokens)
    attends = [
        partial(attend_and_store, plan=layout.plan, cache=cache, layer=layer, rows=rows, slots=slots)
        for layer in range(len(model.layers))
    ]
    h = model.decode(model.fuse(layout), layout.pos, attends)
    return model.head(h[ends]), cache, layout.pos[ends] + 1


def attend_and_store(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    plan: AttentionPlan,
    cache: Cache,
    layer: int,
    rows: torch.Tensor,
    slots: torch.Tensor,
) -> torch.Tensor:
    cache.store(layer, rows, slots, k, v)
    return attend(q, k, v, plan)


def step(model: PLM, tokens: torch.Tensor, pos: torch.Tensor, cache: Cache) -> torch.Tensor:
    """Run one token per row [rows]: scores of the next one [rows, V]."""
    used = int(cache.lengths.max()) + 1
    mask = torch.arange(used, device=tokens.device)[None] <= cache.lengths[:, None]
    attends: list[Attend] = [
        partial(attend_to_cache, cache=cache, layer=layer, mask=mask[:, None, None])
        for layer in range(len(model.layers))
    ]
    h = model.decode(model.tok_embeddings(tokens), pos, attends)
    cache.lengths = cache.lengths + 1
    return model.head(h)


def attend_to_cache(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cache: Cache, layer: int, mask: torch.Tensor
) -> torch.Tensor:
    """Attention of one query per row, q [rows, heads, D], to its row's cache and itself: [rows, heads, D]."""
    cache.store(layer, cache.rows, cache.lengths, k, v)
    used = mask.shape[-1]
    keys, values = cache.keys[layer][:, :, :used], cache.values[layer][:, :, :used]
    return dot_product(q.unsqueeze(2), keys, values, mask=mask).squeeze(2)


def choose(scores: torch.Tensor, generator: torch.Generator, options: GenerationOptions) -> int:
    """The next id from scores [V] on the CPU."""
    if options.temperature == 0:
        return int(scores.argmax())
    ranked, order = (scores / options.temperature).softmax(-1).sort(descending=True, stable=True)
    if options.top_k is not None:
        ranked[options.top_k :] = 0
    if options.top_p is not None:
        # A token stays while those before it have not reached top_p yet: the likeliest one always stays.
        ranked[ranked.cumsum(0) / ranked.sum() - ranked / ranked.sum() >= options.top_p] = 0
    return int(order[torch.multinomial(ranked, 1, generator=generator)])


def extend(row: Row, token: int, limit: int, tokenizer: Tokenizer, options: GenerationOptions) -> None:
    """Add a token to an answer that has not ended, and end it when it is time."""
    if token in tokenizer.stop_ids:
        row.finish_reason = "stop"
    else:
        row.token_ids.append(token)
        if len(row.token_ids) == limit:
            row.finish_reason = "length"
    if row.finish_reason or options.stop:
        row.text = tokenizer.decode(row.token_ids)
        cuts = [row.text.index(stop) for stop in options.stop if stop in row.text]
        if cuts:
            row.text, row.finish_reason = row.text[: min(cuts)], "stop"
