"""Which tensor of a Hugging Face `perception_lm` model is which of ours: one table, read in both directions.

Our names are those of Meta's releases, so that layout needs no table. Two kinds of tensors also change form:

    rotary    queries and keys: Meta turns neighbouring pairs (0 1)(2 3), Hugging Face the two halves of a head (0 2)(1 3).
              For one head of four rows: ours [r0 i0 r1 i1] <-> theirs [r0 r1 i0 i1]
    leading   Hugging Face keeps a batch axis, and for the class token a position axis, in front: [C] <-> [1, 1, C]
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch

TEXT, TOWER, PROJECTOR = "model.language_model", "model.vision_tower.timm_model", "model.multi_modal_projector"
LAYER, HF_LAYER = "layers.{}", f"{TEXT}.layers.{{}}"
BLOCK, HF_BLOCK = "vision_model.transformer.resblocks.{}", f"{TOWER}.blocks.{{}}"
VECTOR_KINDS = ("weight", "bias")


@dataclass(frozen=True)
class KeyPair:
    """One line of the table; `{}` stands for a layer's number. `leading` is how many axes of length 1 are put in front."""

    ours: str
    theirs: str
    form: Literal["same", "rotary"] = "same"
    leading: int = 0


def weight_and_bias(ours: str, theirs: str) -> Iterable[KeyPair]:
    """The weight and the bias of one module."""
    return (KeyPair(f"{ours}.{kind}", f"{theirs}.{kind}") for kind in VECTOR_KINDS)


TABLE: tuple[KeyPair, ...] = (
    KeyPair("tok_embeddings.weight", f"{TEXT}.embed_tokens.weight"),
    KeyPair("norm.weight", f"{TEXT}.norm.weight"),
    KeyPair("output.weight", "lm_head.weight"),
    KeyPair(f"{LAYER}.attention.wq.weight", f"{HF_LAYER}.self_attn.q_proj.weight", form="rotary"),
    KeyPair(f"{LAYER}.attention.wk.weight", f"{HF_LAYER}.self_attn.k_proj.weight", form="rotary"),
    KeyPair(f"{LAYER}.attention.wv.weight", f"{HF_LAYER}.self_attn.v_proj.weight"),
    KeyPair(f"{LAYER}.attention.wo.weight", f"{HF_LAYER}.self_attn.o_proj.weight"),
    KeyPair(f"{LAYER}.feed_forward.w1.weight", f"{HF_LAYER}.mlp.gate_proj.weight"),
    KeyPair(f"{LAYER}.feed_forward.w2.weight", f"{HF_LAYER}.mlp.down_proj.weight"),
    KeyPair(f"{LAYER}.feed_forward.w3.weight", f"{HF_LAYER}.mlp.up_proj.weight"),
    KeyPair(f"{LAYER}.attention_norm.weight", f"{HF_LAYER}.input_layernorm.weight"),
    KeyPair(f"{LAYER}.ffn_norm.weight", f"{HF_LAYER}.post_attention_layernorm.weight"),
    *weight_and_bias("vision_projector.projector.0", f"{PROJECTOR}.linear_1"),
    *weight_and_bias("vision_projector.projector.2", f"{PROJECTOR}.linear_2"),
    KeyPair("vision_model.class_embedding", f"{TOWER}.cls_token", leading=2),
    KeyPair("vision_model.positional_embedding", f"{TOWER}.pos_embed", leading=1),
    KeyPair("vision_model.conv1.weight", f"{TOWER}.patch_embed.proj.weight"),
    *weight_and_bias("vision_model.ln_pre", f"{TOWER}.norm_pre"),
    KeyPair(f"{BLOCK}.attn.in_proj_weight", f"{HF_BLOCK}.attn.qkv.weight"),
    KeyPair(f"{BLOCK}.attn.in_proj_bias", f"{HF_BLOCK}.attn.qkv.bias"),
    *weight_and_bias(f"{BLOCK}.attn.out_proj", f"{HF_BLOCK}.attn.proj"),
    *weight_and_bias(f"{BLOCK}.ln_1", f"{HF_BLOCK}.norm1"),
    *weight_and_bias(f"{BLOCK}.ln_2", f"{HF_BLOCK}.norm2"),
    KeyPair(f"{BLOCK}.ls_1.gamma", f"{HF_BLOCK}.gamma_1"),
    KeyPair(f"{BLOCK}.ls_2.gamma", f"{HF_BLOCK}.gamma_2"),
    *weight_and_bias(f"{BLOCK}.mlp.c_fc", f"{HF_BLOCK}.mlp.fc1"),
    *weight_and_bias(f"{BLOCK}.mlp.c_proj", f"{HF_BLOCK}.mlp.fc2"),
)

NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
BY_OURS = {row.ours: row for row in TABLE}
BY_THEIRS = {row.theirs: row for row in TABLE}


def hf_name(name: str) -> str:
    """The Hugging Face name of one of our tensors; KeyError when the table does not hold it."""
    row, number = find(BY_OURS, name)
    return row.theirs.format(number)


def our_name(name: str) -> str | None:
    """Our name of a Hugging Face tensor; None when it is not part of the model."""
    try:
        row, number = find(BY_THEIRS, name)
    except KeyError:
        return None
    return row.ours.format(number)


def find(table: dict[str, KeyPair], name: str) -> tuple[KeyPair, str]:
    """A name's row and the number of its layer ("" without one). `projector.0` is a name in the table, not a layer."""
    if name in table:
        return table[name], ""
    number = NUMBER.search(name)
    if number is None:
        raise KeyError(name)
    return table[name[: number.start()] + "{}" + name[number.end() :]], number.group()


def to_hf(name: str, tensor: torch.Tensor, head_dim: int) -> torch.Tensor:
    """One of our tensors in Hugging Face's form; `head_dim` is the decoder's."""
    row, _ = find(BY_OURS, name)
    if row.form == "rotary":
        halves: torch.Tensor = tensor.unflatten(0, (-1, head_dim // 2, 2)).transpose(1, 2).flatten(0, 2)
        return halves
    return tensor[(None,) * row.leading]


def from_hf(name: str, tensor: torch.Tensor, head_dim: int) -> torch.Tensor:
    """A Hugging Face tensor, given by our name, in our form: the inverse of `to_hf`."""
    row, _ = find(BY_OURS, name)
    if row.form == "rotary":
        pairs: torch.Tensor = tensor.unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2).flatten(0, 2)
        return pairs
    return tensor[(0,) * row.leading]


def hf_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The Hugging Face shape of one of our tensors."""
    row, _ = find(BY_OURS, name)
    return (1,) * row.leading + tuple(shape)


def our_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Our shape of a Hugging Face tensor, given by our name: the inverse of `hf_shape`."""
    row, _ = find(BY_OURS, name)
    return tuple(shape[row.leading :])
