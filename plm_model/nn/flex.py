"""FlexAttention for packs whose documents are not plainly causal: the rule of `plm_model.nn.attention` as a mask of blocks.

The mask is never written out. A block of 128 x 128 positions is visited when its documents overlap and it is not wholly in the
future; inside of a block the kernel asks the rule. Its construction looks at blocks only, so it costs no memory that grows with
the square of the pack. Runs compiled, on CUDA; without compilation it is a slow reference.

Worked example, blocks of 4 and documents [1 1 1 1 1 1 2 2 2 2]: block 0 (document 1) sees block 0, block 1 (documents 1 and 2)
sees blocks 0 and 1, block 2 (document 2) sees blocks 1 and 2.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

BLOCK = 128
Rule = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def rule(doc: torch.Tensor, group: torch.Tensor, seg: torch.Tensor) -> Rule:
    """Whether query position q sees key position k, as FlexAttention asks it (batch and head, then q and k)."""

    def visible(batch: torch.Tensor, head: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        together = (group[q] == group[k]) & (group[k] > 0)
        open_segment = (seg[k] == 0) | (seg[k] == seg[q])
        return (doc[q] == doc[k]) & (together | ((k <= q) & open_segment))

    return visible


def visited_blocks(doc: torch.Tensor, group: torch.Tensor, block: int = BLOCK) -> torch.Tensor:
    """Which key blocks a query block may see anything of, bool [blocks, blocks]; every document stands together."""
    blocks = F.pad(torch.unique_consecutive(doc, return_inverse=True)[1], (0, -len(doc) % block), value=-1).view(
        -1, block
    )
    first, last = blocks[:, 0], blocks.amax(1)
    grouped = F.pad(group, (0, -len(group) % block)).view(-1, block).amax(1) > 0
    overlap = (first[:, None] <= last[None]) & (first[None] <= last[:, None])
    past = torch.ones_like(overlap).tril()
    return overlap & (past | (grouped[:, None] & grouped[None]))


def block_mask(doc: torch.Tensor, group: torch.Tensor, seg: torch.Tensor, device: torch.device) -> BlockMask:
    """The mask of a pack, from integers [T] on the CPU."""
    from torch.nn.attention.flex_attention import BlockMask

    visited = visited_blocks(doc, group)
    order = visited.to(torch.int32).argsort(dim=1, descending=True, stable=True).to(torch.int32)
    counts = visited.sum(1).to(torch.int32)
    on_device = [x.to(device, non_blocking=True) for x in (doc, group, seg)]
    return BlockMask.from_kv_blocks(
        counts.to(device)[None, None],
        order.to(device)[None, None],
        BLOCK_SIZE=BLOCK,
        mask_mod=rule(*on_device),
        seq_lengths=(len(doc), len(doc)),
    )


def attend_by_blocks(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: BlockMask) -> torch.Tensor:
    """Attention of a pack: q [T, heads, D], k and v [T, kv_heads, D] -> [T, heads, D]."""
    run = compiled() if q.is_cuda else plain()
    heads_first = [x.transpose(0, 1).unsqueeze(0) for x in (q, k, v)]
    result: torch.Tensor = run(*heads_first, block_mask=mask, enable_gqa=q.shape[1] != k.shape[1])
    return result.squeeze(0).transpose(0, 1)


def plain() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention


@cache
def compiled() -> Any:
    """One kernel for packs of every length."""
    return torch.compile(plain(), dynamic=True)
