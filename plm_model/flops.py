"""Floating point operations that a training step needs: what its tokens, tiles and targets cost, and nothing else.

Padding, fillers and recomputed activations are not counted; causal attention is counted at half; the head at the targets
only; a frozen matrix costs its forward pass, and the gradient of its input where something before it learns.

Worked example: a matrix of n entries, run at t positions, costs 2nt forward, 2nt for its own gradient if it learns, and
2nt for its input's if a parameter before it does: 6nt in the middle of a model that is trained whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from plm_model.config import PLMConfig

if TYPE_CHECKING:
    from torch import nn

# Dense bf16 FLOP/s from the vendors' data sheets, without sparsity; the first name found in the device's name counts.
PEAK_FLOPS = {
    "B200": 2250e12,
    "GH200": 989e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H800": 989e12,
    "H20": 148e12,
    "A100": 312e12,
    "A800": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10G": 70e12,
    "A10": 125e12,
    "V100": 125e12,
    "MI300X": 1307e12,
}

LOOKED_UP = ("positional_embedding", "class_embedding")  # added, not multiplied


@dataclass(frozen=True)
class StepCost:
    """FLOPs of forward and backward per token, per squared length of a document, per tile and per target."""

    token: float
    squared_length: float
    tile: float
    target: float

    def of(self, lengths: Sequence[int], tiles: int, targets: int) -> float:
        """FLOPs of documents of these lengths, with so many tiles and targets in all."""
        return self.of_sums(sum(lengths), sum(length**2 for length in lengths), tiles, targets)

    def of_sums(self, tokens: float, squared_lengths: float, tiles: float, targets: float) -> float:
        """The same from the documents' lengths and squared lengths added up."""
        total = self.token * tokens + self.squared_length * squared_lengths
        return total + self.tile * tiles + self.target * targets


def peak_flops(device_name: str) -> float | None:
    """Dense bf16 FLOP/s of a device by the name that its driver gives, or None for one that is not in the table."""
    return next((flops for name, flops in PEAK_FLOPS.items() if name in device_name), None)


def step_cost(model: nn.Module, config: PLMConfig) -> StepCost:
    """What training this model costs, from the sizes of its matrices and which of them learn. Works on any device.

    Parameters are walked in the order in which the data meets them, so that the gradient is seen to stop at the first that
    learns. Adapters count as matrices of the layer that they belong to.
    """
    patches, heads = config.vision.grid**2, config.decoder.heads * config.decoder.head_dim
    positions = patches + int(config.vision.use_cls_token)
    sums = {"token": 0.0, "squared_length": 0.0, "tile": 0.0, "target": 0.0}
    learns_before, table = False, None
    for name, parameter in model.named_parameters():
        if name.startswith("tok_embeddings."):
            table = parameter
        elif name == "vision_model.conv1.weight":
            sums["tile"] += patches * matrix(parameter, input_learns=False)
        elif name.startswith("vision_model.") and not name.endswith(LOOKED_UP):
            sums["tile"] += positions * matrix(parameter, learns_before)
        elif name.startswith("vision_projector."):
            sums["tile"] += patches * matrix(parameter, learns_before)
        elif name.startswith("layers."):
            sums["token"] += matrix(parameter, learns_before)
        elif name.startswith("output."):
            sums["target"] += matrix(parameter, learns_before)
        learns_before |= parameter.requires_grad
        if name.endswith(".attn.out_proj.weight"):
            sums["tile"] += attention(positions, config.vision.width, learns_before)
        elif name.endswith(".attention.wo.weight"):
            sums["squared_length"] += attention(1, heads, learns_before) / 2
    if config.decoder.tied and table is not None:
        sums["target"] += matrix(table, learns_before)
    return StepCost(**sums)


def matrix(parameter: nn.Parameter, input_learns: bool) -> float:
    """FLOPs at one position: forward, its own gradient if it learns, its input's if that leads to something that does."""
    return 2.0 * parameter.numel() * (1 + parameter.requires_grad + input_learns) if parameter.ndim > 1 else 0.0


def attention(length: int, width: int, learns: bool) -> float:
    """FLOPs of attention without projections, every position seeing every other; three times the forward pass if it learns."""
    return 4.0 * length**2 * width * (3 if learns else 1)
