"""Rotary position embedding: the angle of every position in fp32, and the rotation of interleaved pairs.

A head's channels are read as pairs (a, b); the pair i of position p is turned by the angle p * f_i:
(a cos - b sin, a sin + b cos). Worked example: head dim 4 and theta 100 give f = [1, 0.1]; position 2 turns its pairs by
2 and 0.2.
"""

from __future__ import annotations

import math

import torch

from plm_model.nn.config import DecoderConfig, RopeScaling


class Rotary:
    """The turns of T positions as unit complex numbers, complex64 [T, 1, head_dim / 2].

    Not a dataclass on purpose: FSDP looks into tensors, containers and dataclasses among a module's inputs and casts what it
    finds to bf16, which would round the angles.
    """

    def __init__(self, angles: torch.Tensor) -> None:
        self.turns = torch.polar(torch.ones_like(angles), angles).unsqueeze(-2)

    def rotate(self, x: torch.Tensor) -> torch.Tensor:
        """Turn [..., T, heads, head_dim] in at least fp32; dtype and shape stay."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        # One complex product per pair: on a CPU several times faster than the four real ones, and the same numbers.
        pairs = torch.view_as_complex(wide.unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * self.turns).flatten(-2).to(x.dtype)


def decoder_rotary(config: DecoderConfig, pos: torch.Tensor) -> Rotary:
    """The decoder's rotation at integer positions `pos` [T]."""
    return Rotary(torch.outer(pos.float(), decoder_frequencies(config, pos.device)))


def decoder_frequencies(config: DecoderConfig, device: torch.device | str = "cpu") -> torch.Tensor:
    """Radians per position of each pair, fp32 [head_dim / 2], after Llama-3 scaling when the config asks for it."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=device) / config.head_dim
    frequencies = 1.0 / config.rope_theta**exponents
    return frequencies if config.rope_scaling is None else scaled(frequencies, config.rope_scaling)


def scaled(frequencies: torch.Tensor, scaling: RopeScaling) -> torch.Tensor:
    """Slow the long wavelengths by `factor`, keep the short ones, and blend linearly between the two bounds."""
    wavelengths = 2 * math.pi / frequencies
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    blend = ((scaling.original_max_position / wavelengths - low) / (high - low)).clamp(0.0, 1.0)
    return (1 - blend) * frequencies / scaling.factor + blend * frequencies
