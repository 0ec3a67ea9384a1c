"""One encoded conversation as arrays of integers; no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NO_TARGET = -100
ARRAYS = ("tokens", "targets", "pos", "seg", "group")


@dataclass(frozen=True)
class Example:
    """One encoded conversation; every array is int32 [length].

    `targets` is shifted already (what a position must predict, -100 = nothing); `pos` is the position for RoPE; `seg`
    and `group` shape the attention mask (both 0: plain causal).
    """

    tokens: np.ndarray
    targets: np.ndarray
    pos: np.ndarray
    seg: np.ndarray
    group: np.ndarray

    @property
    def length(self) -> int:
        return len(self.tokens)

    @property
    def supervised(self) -> int:
        """How many positions have a target."""
        return int((self.targets != NO_TARGET).sum())


def example(tokens: np.ndarray, targets: np.ndarray) -> Example:
    """An Example under plain causal attention."""
    nothing = np.zeros_like(tokens)
    pos = np.arange(len(tokens), dtype=np.int32)
    return Example(tokens, targets.astype(np.int32), pos, nothing, nothing)
