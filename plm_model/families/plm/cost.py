"""Floating point operations that a training step needs: what its tokens, tiles and targets cost, and nothing else.

Padding, fillers and recomputed activations are not counted; causal attention is counted at half; the head at the targets
only; a frozen matrix costs its forward pass, and the gradient of its input where something before it learns.

Worked example: a matrix of n entries, run at t positions, costs 2nt forward, 2nt for its own gradient if it learns, and
2nt for its input's if a parameter before it does: 6nt in the middle of a model that is trained whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from plm_model.families.plm.settings import PLMConfig
from plm_model.nn.cost import StepCost, attention, matrix

if TYPE_CHECKING:
    from torch import nn


LOOKED_UP = ("positional_embedding", "class_embedding")  # added, not multiplied


def step_cost(model: nn.Module, config: PLMConfig) -> StepCost:
    """What training this model costs, from the sizes of its matrices and which of them learn. Works on any device.

    Parameters are walked in the order in which the data meets them, so that the gradient is seen to stop at the first that
    learns. Adapters count as matrices of the layer that they belong to.
    """
    patches, heads = config.vision.grid**2, config.decoder.heads * config.decoder.head_dim
    positions = patches + int(config.vision.use_cls_token)
    sums = {"token": 0.0, "squared_length": 0.0, "media": 0.0, "target": 0.0}
    learns_before, table = False, None
    for name, parameter in model.named_parameters():
        if name.startswith("tok_embeddings."):
            table = parameter
        elif name == "vision_model.conv1.weight":
            sums["media"] += patches * matrix(parameter, input_learns=False)
        elif name.startswith("vision_model.") and not name.endswith(LOOKED_UP):
            sums["media"] += positions * matrix(parameter, learns_before)
        elif name.startswith("vision_projector."):
            sums["media"] += patches * matrix(parameter, learns_before)
        elif name.startswith("layers."):
            sums["token"] += matrix(parameter, learns_before)
        elif name.startswith("output."):
            sums["target"] += matrix(parameter, learns_before)
        learns_before |= parameter.requires_grad
        if name.endswith(".attn.out_proj.weight"):
            sums["media"] += attention(positions, config.vision.width, learns_before)
        elif name.endswith(".attention.wo.weight"):
            sums["squared_length"] += attention(1, heads, learns_before) / 2
    if config.decoder.tied and table is not None:
        sums["target"] += matrix(table, learns_before)
    return StepCost(**sums)
