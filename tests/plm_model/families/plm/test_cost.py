"""Costs agree with those computed by hand for the published sizes (TFLOP, forward and backward, no recomputation)."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from plm_model.families.plm.cost import step_cost
from plm_model.families.plm.model import build
from plm_model.families.plm.settings import PLMConfig, VisionConfig
from plm_model.families.plm.weights import initialise
from plm_model.nn.config import DecoderConfig
from plm_model.nn.cost import StepCost, peak_flops
from plm_model.packs.batch import Batch

TOKENS = 9800
GIANT = VisionConfig(width=1536, layers=47, mlp_ratio=5.833333334, use_cls_token=False)
PLM_1B = PLMConfig()
PLM_3B = PLMConfig(decoder=DecoderConfig(dim=3072, layers=28, heads=24))
PLM_8B = PLMConfig(vision=GIANT, decoder=DecoderConfig(dim=4096, layers=32, hidden_dim=14336, tied=False))


def cost(config: PLMConfig, frozen: str = "^$") -> StepCost:
    model = build(config)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not re.search(frozen, name))
    return step_cost(model, config)


@pytest.mark.parametrize(("config", "tera"), [(PLM_1B, 2.09), (PLM_8B, 11.6)])
def test_a_tile_costs_what_the_tower_does(config: PLMConfig, tera: float) -> None:
    patches, hidden = config.vision.grid**2, config.decoder.dim
    projector = 6 * patches * hidden * (config.vision.width + hidden)
    assert cost(config).media - projector == pytest.approx(tera * 1e12, rel=0.01)


@pytest.mark.parametrize(("config", "tera"), [(PLM_1B, 91), (PLM_3B, 238), (PLM_8B, 546)])
def test_a_document_of_9800_tokens_with_the_head_everywhere_costs_what_the_decoder_does(
    config: PLMConfig, tera: float
) -> None:
    """The 8B figure of the literature counts its separate embedding table as a matrix product; a look-up costs nothing."""
    table = 0 if config.decoder.tied else 6 * TOKENS * config.decoder.vocab_size * config.decoder.dim
    assert cost(config).of([TOKENS], media=0, targets=TOKENS) + table == pytest.approx(tera * 1e12, rel=0.01)


TINY = PLMConfig(
    vision=VisionConfig(image_size=56, width=64, layers=2, heads=4, drop_path=0.0),
    decoder=DecoderConfig(vocab_size=128, dim=64, layers=3, heads=4, kv_heads=2, hidden_dim=96, max_seq_len=256),
    image_token_id=3,
)


def batch(tiles: int = 2, length: int = 64) -> Batch:
    tokens = torch.full((length,), 7)
    tokens[1 : 1 + tiles * TINY.tokens_per_tile] = TINY.image_token_id
    zero = torch.zeros_like(tokens)
    targets = torch.where(torch.arange(length) >= length - 10, 5, -100)
    image = torch.zeros(tiles, 3, 56, 56, dtype=torch.uint8)
    return Batch(tokens, targets, torch.arange(length), zero, zero, zero + 1, {"tiles": image})


FROZEN = {
    "nothing": "^$",
    "vision": "^vision_model",
    "all but projector": "^vision_model|^tok|^layers|^norm|^output",
    "lower layers": r"^vision|^tok|^layers\.[01]\.",
}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("frozen", FROZEN)
def test_costs_are_those_that_torch_counts(frozen: str, tied: bool) -> None:
    """Attention apart: torch counts what its kernels really do, we count causal attention at half."""
    config = replace(TINY, decoder=replace(TINY.decoder, tied=tied))
    model = initialise(build(config), seed=0)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not re.search(FROZEN[frozen], name))
    made = batch()
    with FlopCounterMode(display=False) as counter:
        model(made).sum().backward()
    kinds = counter.get_flop_counts()["Global"]
    products = sum(count for kind, count in kinds.items() if "attention" not in str(kind))
    ours, width = step_cost(model, config), config.vision.width
    positions = config.vision.grid**2 + 1
    towers = 4 * positions**2 * width * config.vision.layers * (3 if frozen == "nothing" else 1)
    linear = ours.token * 64 + (ours.media - towers) * 2 + ours.target * 10
    assert linear == pytest.approx(products, rel=0.01)


def test_frozen_parts_cost_less_and_the_gradient_stops_where_nothing_learns() -> None:
    whole, warmup = cost(TINY), cost(TINY, FROZEN["all but projector"])
    assert warmup.token == pytest.approx(whole.token * 2 / 3)
    tower, projector = cost(TINY, "^vision"), cost(TINY, "^vision_model")
    assert tower.media < projector.media < whole.media
    assert cost(TINY, FROZEN["lower layers"]).token == pytest.approx(whole.token * (1 + 1 + 3) / 9, rel=0.05)


def test_documents_do_not_pay_for_each_other() -> None:
    one = cost(TINY)
    assert one.of([30, 30], 0, 5) < one.of([60], 0, 5)
    assert one.of([2], 1, 1) == pytest.approx(2 * one.token + 4 * one.squared_length + one.media + one.target)


def test_devices_are_known_by_their_names() -> None:
    assert peak_flops("NVIDIA H200") == peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("NVIDIA H100 PCIe") == 756e12 and peak_flops("NVIDIA A100-SXM4-80GB") == 312e12
    assert peak_flops("cpu") is None
