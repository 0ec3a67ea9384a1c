"""FlexAttention's mask is the rule: as a function of two positions, and in which blocks it looks at all."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import flex_attention

from plm_model.nn.attention import AttentionPlan, attend, back_end
from plm_model.nn.flex import block_mask, rule, visited_blocks
from tests.plm_model.nn import test_attention as written

CPU = torch.device("cpu")
PACKS = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 6), st.booleans()), min_size=1, max_size=6)


def pack(documents: list[tuple[int, int, bool]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """doc, group and seg of documents (text before, image block, labels or none)."""
    doc, group, seg = [], [], []
    for number, (before, image, labelled) in enumerate(documents, start=1):
        labels = [1, 1, 2, 2, 2] if labelled else []
        group += [0] * before + [1] * image + [0] * len(labels)
        seg += [0] * (before + image) + labels
        doc += [number] * (before + image + len(labels))
    return torch.tensor(doc), torch.tensor(group), torch.tensor(seg)


def dense(doc: torch.Tensor, group: torch.Tensor, seg: torch.Tensor) -> torch.Tensor:
    places = torch.arange(len(doc))
    return rule(doc, group, seg)(torch.tensor(0), torch.tensor(0), places[:, None], places[None])


@settings(max_examples=10, deadline=None)
@given(PACKS)
def test_the_mask_function_is_the_written_rule(documents: list[tuple[int, int, bool]]) -> None:
    doc, group, seg = pack(documents)
    assert torch.equal(dense(doc, group, seg), written.rule(doc, group, seg))


@settings(deadline=None)
@given(PACKS, st.integers(2, 7))
def test_every_block_in_which_something_is_visible_is_visited(
    documents: list[tuple[int, int, bool]], size: int
) -> None:
    doc, group, seg = pack(documents)
    q, k = dense(doc, group, seg).nonzero().T
    assert visited_blocks(doc, group, size)[q // size, k // size].all()


def test_the_worked_example_of_the_module() -> None:
    doc = torch.tensor([1] * 6 + [2] * 4)
    assert visited_blocks(doc, doc * 0, 4).tolist() == [
        [True, False, False],
        [True, True, False],
        [False, True, True],
    ]


def test_blocks_of_other_documents_and_of_the_future_are_not_visited() -> None:
    doc = torch.arange(8).repeat_interleave(512)
    assert visited_blocks(doc, doc * 0).sum() == 8 * (4 * 5 // 2)


def test_attention_by_blocks_follows_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    # Eager FlexAttention is traced as if compiled, for seconds; this switch of torch runs it as it stands.
    monkeypatch.setattr(flex_attention, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    documents = [(90, 70, True), (3, 0, False), (120, 0, True), (60, 50, False)]
    doc, group, seg = pack(documents)
    mask = block_mask(doc, group, seg, CPU)
    assert mask.shape == (1, 1, len(doc), len(doc))
    assert torch.equal(mask.to_dense()[0, 0].bool(), visited_blocks(doc, group))
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(len(doc), heads, 16, generator=generator) for heads in (4, 2, 2))
    k4, v4 = (x.repeat_interleave(2, dim=1).transpose(0, 1) for x in (k, v))
    expected = torch.nn.functional.scaled_dot_product_attention(
        q.transpose(0, 1), k4, v4, attn_mask=dense(doc, group, seg)
    )
    ours = attend(q, k, v, AttentionPlan(blocks=mask))
    torch.testing.assert_close(ours, expected.transpose(0, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("plain", "device", "dtype", "expected"),
    [
        (True, "cuda", torch.bfloat16, "varlen"),
        (True, "cuda", torch.float32, "sdpa"),
        (False, "cuda", torch.bfloat16, "flex"),
        (False, "cuda", torch.float32, "flex"),
        (True, "cpu", torch.bfloat16, "sdpa"),
        (False, "cpu", torch.float32, "sdpa"),
    ],
)
def test_each_pack_has_its_back_end(plain: bool, device: str, dtype: torch.dtype, expected: str) -> None:
    assert back_end(plain, torch.device(device), dtype) == expected
