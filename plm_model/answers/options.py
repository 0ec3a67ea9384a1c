"""How to answer, and what an answer is; the choice of the next token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from plm_model.parsing.bounds import Range, check, positive, up_to

if TYPE_CHECKING:
    pass

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
