"""What recomputation runs again is counted, operation by operation."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from plm_model.nn.recompute import Recompute, run_block


class Counted(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("kind", "products", "activations"), [("none", 3, 1), ("selective", 3, 2), ("full", 4, 2)])
def test_a_product_is_run_again_in_full_only_and_an_activation_in_selective_too(
    kind: Recompute, products: int, activations: int
) -> None:
    """One product forward, two backward."""
    weight = torch.randn(4, 4, requires_grad=True)

    def block(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.silu(x @ weight).square()

    x = torch.randn(2, 4, requires_grad=True)
    with Counted() as counted:
        run_block(block, kind, False, x).sum().backward()
    assert (counted.counts["mm"], counted.counts["silu"]) == (products, activations)


@pytest.mark.parametrize("kind", ["selective", "full"])
def test_random_numbers_are_drawn_again_as_they_were(kind: Recompute) -> None:
    x = torch.ones(100, requires_grad=True)
    made = run_block(lambda x: torch.nn.functional.dropout(x * x, 0.5).exp(), kind, True, x)
    made.sum().backward()
    assert torch.equal(x.grad > 0, made > 1.5)
