"""Answers to a batch of prompts: one packed pass over all of them, then one token per row and step.

A prompt's answer does not depend on its company: prompts of other lengths and media give in one batch what each gives
alone. The packed pass has no padding; how the steps go on from it is told in `plm_model.decoding`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from plm_model.attention import AttentionPlan, attend
from plm_model.bounds import Range, check, positive, up_to
from plm_model.decoding import Cache, Step
from plm_model.pack import collate
from plm_model.plm import PLM

if TYPE_CHECKING:
    from plm_model.codec import Example
    from plm_model.tokenizer import Tokenizer


LEAST_TEMPERATURE = 1e-4
OnText = Callable[[int, str, bool], None]  # a row's number, its text so far, whether that is all


@dataclass(frozen=True)
class GenerationOptions:
    """How to answer. `temperature` 0 takes the likeliest token; above it, `top_p` or else `top_k` narrows the choice.

    An answer ends at one of the tokenizer's stop ids, at a `stop` string (cut off), or after `max_new_tokens`. Every
    row draws the same numbers, those of `seed`, so that its company changes nothing. ValueError when a value is out of range.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    seed: int = 0

    BOUNDS: ClassVar[dict[str, Range]] = {
        "max_new_tokens": positive(10**6),
        "temperature": up_to(1e4),
        "top_p": Range(0, 1, open_low=True),
        "top_k": positive(2**31),
        "seed": up_to(2**63 - 1),
    }

    def __post_init__(self) -> None:
        check(self)
        if 0 < self.temperature < LEAST_TEMPERATURE:  # scores divided by less are not finite
            raise ValueError(f"temperature is {self.temperature}; it must be 0 or at least {LEAST_TEMPERATURE}")
        if "" in self.stop:
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

    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    finish_reason: str = ""


@torch.inference_mode()
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
        rows = [Row() for _ in prompts]
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
    scores, step = prefill(model, prompts, max(limits))
    draws = torch.rand(max(limits), generator=torch.Generator().manual_seed(options.seed)).to(scores.device)
    for draw in draws:
        tokens = choose(scores, draw, options)
        for number, (row, token, limit) in enumerate(zip(rows, tokens.tolist(), limits, strict=True)):
            if row.finish_reason:
                continue
            extend(row, token, limit, tokenizer, options)
            if on_text is not None:
                on_text(
                    number, row.text if row.finish_reason else tokenizer.decode(row.token_ids), bool(row.finish_reason)
                )
        if all(row.finish_reason for row in rows):
            return
        scores = step(tokens)


def prefill(model: PLM, prompts: Sequence[tuple[Example, np.ndarray]], new_tokens: int) -> tuple[torch.Tensor, Step]:
    """Run all prompts as one pack: scores of each row's first new token [rows, V], and what gives the next ones."""
    examples, tiles = zip(*prompts, strict=True)
    batch = collate(examples, tiles, model.config)
    if not any(len(media) for media in tiles):
        batch = replace(batch, tiles=batch.tiles[:0])
    layout = model.lay_out(batch)
    lengths = [example.length for example in examples]
    cache = Cache(model, lengths, new_tokens)
    places = [torch.arange(length) + row * cache.slots for row, length in enumerate(lengths)]
    store = partial(attend_and_store, plan=layout.plan, cache=cache, places=torch.cat(places).to(layout.pos.device))
    attends = [partial(store, layer=layer) for layer in range(len(model.layers))]
    h = model.decode(model.fuse(layout), layout.pos, attends)
    ends = (torch.tensor(lengths).cumsum(0) - 1).to(layout.pos.device)
    return model.head(h[ends]), Step(model, cache, layout.pos[ends] + 1)


def attend_and_store(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    plan: AttentionPlan,
    cache: Cache,
    layer: int,
    places: torch.Tensor,
) -> torch.Tensor:
    cache.store(layer, places, k, v)
    return attend(q, k, v, plan)


def choose(scores: torch.Tensor, draw: torch.Tensor, options: GenerationOptions) -> torch.Tensor:
    """The next ids [rows] from scores [rows, V]; `draw` in [0, 1), one or [rows, 1], picks by cumulated probability."""
    if options.temperature == 0:
        return scores.argmax(-1)
    share = (scores / options.temperature).softmax(-1)
    if options.top_p is not None:
        # A token stays while those before it have not reached top_p yet: the likeliest one always stays.
        ranked, ids = share.sort(descending=True, stable=True)
        ranked = ranked.masked_fill(ranked.cumsum(-1) - ranked >= options.top_p, 0)
    elif options.top_k is not None:
        ranked, ids = share.topk(min(options.top_k, share.shape[-1]))
    else:
        return drawn(share, draw).squeeze(-1)
    return ids.gather(-1, drawn(ranked, draw)).squeeze(-1)


def drawn(share: torch.Tensor, draw: torch.Tensor) -> torch.Tensor:
    """Where the part `draw` of the whole lies in shares [rows, n] laid end to end: [rows, 1], never at a share of 0."""
    edges = share.cumsum(-1)
    whole = edges[:, -1:]
    last = (edges < whole).sum(-1, keepdim=True)  # behind it, rounding could lead to what was ruled out
    return torch.searchsorted(edges, draw * whole, right=True).minimum(last)


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
