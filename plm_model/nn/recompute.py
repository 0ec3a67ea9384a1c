"""What a block keeps for the backward pass: everything, the results of its matrix products and attention, or its input only."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, Literal, TypeVar

import torch
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

Recompute = Literal["none", "selective", "full"]
T = TypeVar("T")

# Dear to compute; norms, activations, rotations and residuals between them are cheap and are computed again.
KEPT = ("aten.mm", "aten.addmm", "aten._scaled_dot_product_", "torch_attn._varlen_attn")


def run_block(run: Callable[..., T], kind: Recompute, random: bool, *inputs: Any, **named: Any) -> T:
    """`run(*inputs, **named)`. `random`: it draws random numbers, which are then the same when it is computed again."""
    if kind == "none" or not torch.is_grad_enabled():
        return run(*inputs, **named)
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": random}
    if kind == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, policy)
    result: T = checkpoint(run, *inputs, **named, **options)
    return result


def policy(context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if is_kept(operation) else CheckpointPolicy.PREFER_RECOMPUTE


@cache
def is_kept(operation: Any) -> bool:
    name = str(operation.overloadpacket)
    return name in KEPT or any(name.startswith(kept) for kept in KEPT if kept.endswith("_"))
