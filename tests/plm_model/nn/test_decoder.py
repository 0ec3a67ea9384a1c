"""The decoder's parts against formulas written out slowly."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from plm_model.nn.config import DecoderConfig, RopeScaling
from plm_model.nn.decoder import DecoderLayer, RMSNorm
from plm_model.nn.rope import Rotary, decoder_frequencies, decoder_rotary

CONFIG = DecoderConfig(vocab_size=10, dim=32, layers=1, heads=4, kv_heads=2, hidden_dim=32, rope_theta=1e4)


def test_rope_turns_interleaved_pairs_by_position_times_frequency() -> None:
    heads = torch.randn(3, 1, 8, dtype=torch.float64)
    rotated = decoder_rotary(CONFIG, torch.tensor([0, 7, 200])).rotate(heads)
    for row, position in enumerate((0, 7, 200)):
        for i in range(4):
            angle = position * 1e4 ** (-2 * i / 8)
            a, b = heads[row, 0, 2 * i : 2 * i + 2].tolist()
            expected = [a * math.cos(angle) - b * math.sin(angle), a * math.sin(angle) + b * math.cos(angle)]
            torch.testing.assert_close(
                rotated[row, 0, 2 * i : 2 * i + 2], torch.tensor(expected, dtype=torch.float64), atol=1e-4, rtol=0
            )


def test_positions_count_and_not_places_in_the_pack() -> None:
    x = torch.randn(1, 2, 8).expand(3, 2, 8)
    rotated = decoder_rotary(CONFIG, torch.tensor([5, 0, 5])).rotate(x)
    assert torch.equal(rotated[0], rotated[2])
    assert torch.equal(rotated[1], x[1])


def test_llama_3_scaling_keeps_short_waves_slows_long_ones_and_blends_between() -> None:
    scaling = RopeScaling(factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position=8192)
    config = DecoderConfig(rope_scaling=scaling)
    plain = [5e5 ** (-2 * i / 64) for i in range(32)]
    expected = []
    for frequency in plain:
        wavelength = 2 * math.pi / frequency
        smooth = (8192 / wavelength - 1.0) / 3.0
        if wavelength < 8192 / 4:
            expected.append(frequency)
        elif wavelength > 8192:
            expected.append(frequency / 32)
        else:
            expected.append((1 - smooth) * frequency / 32 + smooth * frequency)
    assert len({round(e / p, 6) for e, p in zip(expected, plain, strict=True)}) > 2  # the blend is met
    torch.testing.assert_close(decoder_frequencies(config), torch.tensor(expected), rtol=1e-5, atol=0)


def test_the_norm_of_half_precision_is_computed_in_full_precision() -> None:
    norm = RMSNorm(512, 1e-5).bfloat16()
    x = (torch.randn(4, 512) * 100).bfloat16()
    wide = x.float()
    expected = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-5)
    assert torch.equal(norm(x), expected.bfloat16())


@pytest.fixture
def one_rank() -> Iterator[None]:
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    yield
    dist.destroy_process_group()


def test_angles_stay_in_full_precision_where_sharded_training_casts_inputs(one_rank: None) -> None:
    """bf16 holds no position above 256 exactly."""
    layer = DecoderLayer(CONFIG)
    fully_shard(layer, mesh=init_device_mesh("cpu", (1,)), mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))
    rotary = decoder_rotary(CONFIG, torch.tensor([4097, 11519]))
    seen: dict[str, torch.Tensor] = {}

    class Recorded(Rotary):
        """The rotation given, and what it was asked to turn."""

        def __init__(self, turns: torch.Tensor) -> None:
            self.turns = turns

        def rotate(self, x: torch.Tensor) -> torch.Tensor:
            seen["before"] = x
            return super().rotate(x)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        seen["after"] = k
        return q

    layer(torch.randn(2, 32), Recorded(rotary.turns), attend)
    assert seen["before"].dtype == torch.bfloat16
    assert torch.equal(seen["after"], rotary.rotate(seen["before"]))
    rounded = torch.outer(torch.tensor([4097.0, 11519.0]), decoder_frequencies(CONFIG)).bfloat16().float()
    assert not torch.allclose(seen["after"], Rotary(rounded).rotate(seen["before"]), atol=0.1)
