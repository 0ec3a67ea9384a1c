"""Attention in a pack follows one written rule, whatever the back end does to be fast."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from plm_model.nn.attention import attend, plan_attention

HEADS, KV_HEADS, WIDTH = 4, 2, 8
LENGTHS = [5, 2, 12, 5, 1, 11]


def rule(doc: torch.Tensor, group: torch.Tensor, seg: torch.Tensor) -> torch.Tensor:
    """The visibility rule, written out over every pair of positions."""
    total = len(doc)
    allowed = torch.zeros(total, total, dtype=torch.bool)
    for q in range(total):
        for k in range(total):
            together = group[q] == group[k] and group[k] > 0
            allowed[q, k] = doc[q] == doc[k] and (together or (k <= q and (seg[k] == 0 or seg[k] == seg[q])))
    return allowed


def slow_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    k, v = (x.repeat_interleave(HEADS // KV_HEADS, dim=1) for x in (k, v))
    weights = torch.einsum("qhd,khd->hqk", q, k) / WIDTH**0.5
    weights = weights.masked_fill(~allowed, -torch.inf).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, v)


def projections(total: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(total, heads, WIDTH, generator=generator, dtype=torch.float64)
        for heads in (HEADS, KV_HEADS, KV_HEADS)
    ]


def documents(lengths: list[int]) -> torch.Tensor:
    return torch.arange(1, len(lengths) + 1).repeat_interleave(torch.tensor(lengths))


def masks(kind: str, total: int) -> tuple[torch.Tensor, torch.Tensor]:
    group, seg = torch.zeros(total, dtype=torch.int64), torch.zeros(total, dtype=torch.int64)
    if kind != "causal":
        # In the 12 positions of the third document: an image block of 4, then labels of 3, 2 and 2.
        group[8:12] = 1
        seg[12:19] = torch.tensor([1, 1, 1, 2, 2, 3, 3])
    return group, seg


@pytest.mark.parametrize("kind", ["causal", "grouped"])
def test_a_pack_follows_the_rule(kind: str) -> None:
    doc = documents(LENGTHS)
    q, k, v = projections(len(doc))
    group, seg = masks(kind, len(doc))
    plan = plan_attention(doc, group, seg, "cpu", q.dtype)
    expected = slow_attention(q, k, v, rule(doc, group, seg))
    torch.testing.assert_close(attend(q, k, v, plan), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", ["causal", "grouped"])
def test_gradients_follow_the_rule_too(kind: str) -> None:
    doc = documents(LENGTHS)
    inputs = [x.requires_grad_() for x in projections(len(doc))]
    group, seg = masks(kind, len(doc))
    weight = torch.randn(len(doc), HEADS, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    plan = plan_attention(doc, group, seg, "cpu", torch.float64)
    ours = torch.autograd.grad((attend(*inputs, plan) * weight).sum(), inputs)
    slow = torch.autograd.grad((slow_attention(*inputs, rule(doc, group, seg)) * weight).sum(), inputs)
    for a, b in zip(ours, slow, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


def test_the_worked_example_of_the_module() -> None:
    doc = documents([5, 2, 5])
    zero = torch.zeros_like(doc)
    plan = plan_attention(doc, zero, zero, "cpu", torch.float32)
    assert [bucket.index.tolist() for bucket in plan.buckets] == [[[0, 1, 2, 3, 4], [7, 8, 9, 10, 11]], [[5, 6]]]
    assert plan.restore.tolist() == [0, 1, 2, 3, 4, 10, 11, 5, 6, 7, 8, 9]


def test_padding_stays_below_a_quarter() -> None:
    lengths = np.random.default_rng(0).integers(1, 500, 200).tolist()
    doc = documents(lengths)
    zero = torch.zeros_like(doc)
    plan = plan_attention(doc, zero, zero, "cpu", torch.float32)
    assert sum(bucket.index.numel() for bucket in plan.buckets) < sum(lengths) / 0.75


def test_a_document_in_two_places_is_refused() -> None:
    doc = torch.tensor([1, 2, 1])
    with pytest.raises(ValueError, match="stand together"):
        plan_attention(doc, doc * 0, doc * 0, "cpu", torch.float32)
