"""Answers to a batch of prompts: one packed pass over all of them, then one token per row and step.

A prompt's answer does not depend on its company: prompts of other lengths and media give in one batch what each gives
alone. The packed pass has no padding; how the steps go on from it is told in `plm_model.families.plm.decoding`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from plm_model.answers.options import Generation, GenerationOptions, OnText, choose
from plm_model.families.plm.collator import collate
from plm_model.families.plm.decoding import Cache, DecodingStep
from plm_model.families.plm.model import PLM
from plm_model.families.plm.settings import TILES
from plm_model.nn.attention import AttentionPlan, attend
from plm_model.packs.example import Example

if TYPE_CHECKING:
    from plm_model.families.plm.tokenizer import Tokenizer
    from plm_model.packs.example import Example


GREEDY = GenerationOptions()
Prompt = tuple[Example, np.ndarray]  # an encoded question, and uint8 [tiles, 3, H, W]


@dataclass
class GrowingAnswer:
    """An answer while it grows."""

    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    finish_reason: str = ""


@torch.inference_mode()
def generate(
    model: PLM,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    options: GenerationOptions = GREEDY,
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
        rows = [GrowingAnswer() for _ in prompts]
        run(model, tokenizer, prompts, rows, limits, options, on_text)
    finally:
        model.train(was_training)
    return [Generation(row.text, row.token_ids, row.finish_reason) for row in rows]


@torch.inference_mode()
def likelihoods(
    model: PLM, tokenizer: Tokenizer, prompts: Sequence[Prompt], answers: Sequence[str]
) -> list[tuple[float, bool]]:
    """Of each prompt and its given answer: the mean loss of the answer's tokens in nats, and whether greedy gives it.

    ValueError when an answer has no token, or does not fit behind its prompt.
    """
    given = [tokenizer.encode(answer) for answer in answers]
    for (example, _), ids in zip(prompts, given, strict=True):
        if not ids:
            raise ValueError("an answer without a token has no likelihood")
        if room(model, example, GenerationOptions(max_new_tokens=len(ids))) < len(ids):
            raise ValueError(f"an answer of {len(ids)} tokens does not fit behind a prompt of {example.length}")
    steps = max(map(len, given))
    padded = torch.tensor([ids + [0] * (steps - len(ids)) for ids in given])
    inside = torch.tensor([[place < len(ids) for place in range(steps)] for ids in given])
    scores, step = prefill(model, prompts, steps)
    padded, inside = padded.to(scores.device), inside.to(scores.device)
    losses, greedy = torch.zeros(len(given), device=scores.device), torch.ones_like(inside[:, 0])
    for place in range(steps):
        tokens, counts = padded[:, place], inside[:, place]
        shares = scores.float().log_softmax(-1)
        losses -= torch.where(counts, shares.gather(-1, tokens[:, None])[:, 0], 0.0)
        greedy &= ~counts | (scores.argmax(-1) == tokens)
        if place + 1 < steps:
            scores = step(tokens)
    means = losses / inside.sum(1)
    return list(zip(means.tolist(), greedy.tolist(), strict=True))


def room(model: PLM, example: Example, options: GenerationOptions) -> int:
    """How many tokens may follow a prompt."""
    longest = model.config.decoder.max_seq_len
    if example.length >= longest:
        raise ValueError(f"a prompt of {example.length} tokens leaves no room in the model's {longest}")
    return min(options.max_new_tokens, longest - example.length)


def run(
    model: PLM,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    rows: list[GrowingAnswer],
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


def prefill(model: PLM, prompts: Sequence[Prompt], new_tokens: int) -> tuple[torch.Tensor, DecodingStep]:
    """Run all prompts as one pack: scores of each row's first new token [rows, V], and what gives the next ones."""
    examples, tiles = zip(*prompts, strict=True)
    batch = collate(examples, tiles, model.config)
    if not any(len(media) for media in tiles):
        batch = replace(batch, media={TILES: batch.media[TILES][:0]})
    layout = model.lay_out(batch)
    lengths = [example.length for example in examples]
    cache = Cache(model, lengths, new_tokens)
    places = [torch.arange(length) + row * cache.slots for row, length in enumerate(lengths)]
    store = partial(attend_and_store, plan=layout.plan, cache=cache, places=torch.cat(places).to(layout.pos.device))
    attends = [partial(store, layer=layer) for layer in range(len(model.layers))]
    h = model.decode(model.fuse(layout), layout.pos, attends)
    ends = (torch.tensor(lengths).cumsum(0) - 1).to(layout.pos.device)
    return model.head(h[ends]), DecodingStep(model, cache, layout.pos[ends] + 1)


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


def extend(row: GrowingAnswer, token: int, limit: int, tokenizer: Tokenizer, options: GenerationOptions) -> None:
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
