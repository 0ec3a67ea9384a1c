"""Floating point operations of matrices, of attention, and of a training step; what devices can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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


@dataclass(frozen=True)
class StepCost:
    """FLOPs of forward and backward per token, per squared length of a document, per item of media and per target."""

    token: float
    squared_length: float
    media: float
    target: float

    def of(self, lengths: Sequence[int], media: int, targets: int) -> float:
        """FLOPs of documents of these lengths, with so many items of media and targets in all."""
        return self.of_sums(sum(lengths), sum(length**2 for length in lengths), media, targets)

    def of_sums(self, tokens: float, squared_lengths: float, media: float, targets: float) -> float:
        """The same from the documents' lengths and squared lengths added up."""
        total = self.token * tokens + self.squared_length * squared_lengths
        return total + self.media * media + self.target * targets


def peak_flops(device_name: str) -> float | None:
    """Dense bf16 FLOP/s of a device by the name that its driver gives, or None for one that is not in the table."""
    return next((flops for name, flops in PEAK_FLOPS.items() if name in device_name), None)


def matrix(parameter: nn.Parameter, input_learns: bool) -> float:
    """FLOPs at one position: forward, its own gradient if it learns, its input's if that leads to something that does."""
    return 2.0 * parameter.numel() * (1 + parameter.requires_grad + input_learns) if parameter.ndim > 1 else 0.0


def attention(length: int, width: int, learns: bool) -> float:
    """FLOPs of attention without projections, every position seeing every other; three times the forward pass if it learns."""
    return 4.0 * length**2 * width * (3 if learns else 1)
