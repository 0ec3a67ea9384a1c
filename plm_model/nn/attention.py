"""Attention inside a pack: each document sees itself only, by one rule for every model family.

    visible(q, k) = doc[q] == doc[k] and (group[q] == group[k] > 0 or (k <= q and (seg[k] == 0 or seg[k] == seg[q])))

`plan_attention` turns the rule into indices once per batch; `attend` uses the plan in every layer. On CUDA, packs of plain
causal documents run as variable-length flash attention in half precision, and packs that use `group` or `seg` as
FlexAttention (`plm_model.nn.flex`). Everything else is gathered into buckets of documents of similar length for SDPA, with a
boolean mask only for documents that use `group` or `seg`.

Worked example: lengths [5, 2, 5] become two buckets, index [[0 1 2 3 4], [7 8 9 10 11]] and [[5 6]]. Flattened they hold the
positions 0-4, 7-11, 5-6; `restore` = [0 1 2 3 4 10 11 5 6 7 8 9] brings the pack's order back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

# A document joins a bucket while it fills at least this part of the bucket's length: padding stays below a quarter.
FILL = 0.75


@dataclass(frozen=True)
class Bucket:
    """Documents run as one batch: `index` int64 [docs, longest] into the pack, a short document repeating its last position.

    `mask` is bool [docs, 1, longest, longest], True = visible, or None for plain causal documents.
    """

    index: torch.Tensor
    mask: torch.Tensor | None


@dataclass(frozen=True)
class AttentionPlan:
    """What attention needs to know about a pack of T positions.

    Either `cu_seqlens` (int32 [docs + 1], start of each document) and `longest`, or `blocks`, or `buckets` and `restore`
    (int64 [T], where each position of the pack stands in the flattened buckets).
    """

    buckets: tuple[Bucket, ...] = ()
    restore: torch.Tensor | None = None
    cu_seqlens: torch.Tensor | None = None
    longest: int = 0
    blocks: BlockMask | None = None


def back_end(plain: bool, device: torch.device, dtype: torch.dtype) -> Literal["varlen", "flex", "sdpa"]:
    """What runs a pack; `plain` when no document uses `group` or `seg`."""
    if device.type != "cuda":
        return "sdpa"
    if not plain:
        return "flex"
    return "varlen" if dtype in (torch.bfloat16, torch.float16) else "sdpa"


def plan_attention(
    doc: torch.Tensor, group: torch.Tensor, seg: torch.Tensor, device: torch.device | str, dtype: torch.dtype
) -> AttentionPlan:
    """The plan of a pack for q, k, v of this device and dtype. `doc`, `group`, `seg`: integers [T] on the CPU.

    ValueError when a document's positions are not contiguous.
    """
    device = torch.device(device)
    starts, lengths = documents(doc.numpy())
    plain = not (group.any() or seg.any())
    chosen = back_end(plain, device, dtype)
    if chosen == "flex":
        from plm_model.nn.flex import block_mask

        return AttentionPlan(blocks=block_mask(doc, group, seg, device))
    if chosen == "varlen":
        bounds = torch.from_numpy(np.append(starts, len(doc)).astype(np.int32))
        return AttentionPlan(cu_seqlens=bounds.to(device, non_blocking=True), longest=int(lengths.max()))
    buckets, restore, filled = [], np.empty(len(doc), np.int64), 0
    for members in similar_lengths(lengths):
        longest = lengths[members[0]]
        offsets = np.minimum(np.arange(longest)[None], lengths[members, None] - 1)
        index = starts[members, None] + offsets
        real = np.arange(longest)[None] < lengths[members, None]
        restore[index[real]] = filled + np.flatnonzero(real)
        filled += index.size
        mask = None if plain else visible(torch.from_numpy(index), torch.from_numpy(real), group, seg).to(device)
        buckets.append(Bucket(torch.from_numpy(index).to(device, non_blocking=True), mask))
    return AttentionPlan(buckets=tuple(buckets), restore=torch.from_numpy(restore).to(device, non_blocking=True))


def documents(doc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First position and length of each document of a pack."""
    starts = np.append(0, np.flatnonzero(np.diff(doc)) + 1)
    if len(np.unique(doc)) != len(starts):
        raise ValueError("a document's positions must stand together in the pack")
    return starts, np.diff(np.append(starts, len(doc)))


def similar_lengths(lengths: np.ndarray) -> list[np.ndarray]:
    """Documents grouped by length, longest group first and longest document first in its group."""
    order = np.argsort(-lengths, kind="stable")
    groups: list[list[int]] = []
    for document in order:
        if not groups or lengths[document] < FILL * lengths[groups[-1][0]]:
            groups.append([])
        groups[-1].append(document)
    return [np.array(members) for members in groups]


def visible(index: torch.Tensor, real: torch.Tensor, group: torch.Tensor, seg: torch.Tensor) -> torch.Tensor:
    """The rule inside one bucket, bool [docs, 1, L, L]. Padding is seen by nobody and sees what the last position sees."""
    group, seg = group[index], seg[index]
    causal = torch.ones(index.shape[1], index.shape[1], dtype=torch.bool).tril()
    together = (group[:, :, None] == group[:, None, :]) & (group[:, None, :] > 0)
    open_segment = (seg[:, None, :] == 0) | (seg[:, :, None] == seg[:, None, :])
    return ((together | (causal & open_segment)) & real[:, None, :]).unsqueeze(1)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, plan: AttentionPlan) -> torch.Tensor:
    """Attention of a pack: q [T, heads, D], k and v [T, kv_heads, D] -> [T, heads, D]."""
    if plan.cu_seqlens is not None:
        bounds, longest = plan.cu_seqlens, plan.longest
        from torch.nn.attention.varlen import varlen_attn  # loads torch._dynamo, seconds that a CPU need not spend

        return varlen_attn(  # type: ignore[return-value]  # a pair only where statistics are asked for
            q, k, v, bounds, bounds, longest, longest, window_size=(-1, 0), enable_gqa=q.shape[1] != k.shape[1]
        )
    if plan.blocks is not None:
        from plm_model.nn.flex import attend_by_blocks

        return attend_by_blocks(q, k, v, plan.blocks)
    outputs = [attend_bucket(q, k, v, bucket) for bucket in plan.buckets]
    return torch.cat(outputs).index_select(0, plan.restore)  # type: ignore[arg-type]  # buckets come with it


def attend_bucket(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bucket: Bucket) -> torch.Tensor:
    """Attention of one bucket's documents, flattened: [docs * longest, heads, D]."""
    flat = bucket.index.flatten()
    q, k, v = [x.index_select(0, flat).unflatten(0, bucket.index.shape).transpose(1, 2) for x in (q, k, v)]
    return dot_product(q, k, v, mask=bucket.mask, causal=bucket.mask is None).transpose(1, 2).flatten(0, 1)


def dot_product(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None, causal: bool = False
) -> torch.Tensor:
    """Softmax attention of q [B, heads, Q, D] over k, v [B, kv_heads, K, D]; grouped queries share their key head."""
    grouped = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=grouped)
