"""Small models, and examples that fit them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from plm_model.families.plm.model import PLM, build
from plm_model.families.plm.settings import PLMConfig
from plm_model.families.plm.weights import initialise
from plm_model.packs.example import Example
from tests.plm_model.model_directories import SCALED

IMAGE = 90
Prompt = tuple[Example, np.ndarray]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def tiny() -> PLMConfig:
    """64 wide, two layers each, four positions per tile, grouped queries, scaled RoPE, tied; token 90 of 100 is the image."""
    decoder = replace(SCALED.decoder, vocab_size=100, max_seq_len=256)
    return replace(SCALED, vision=replace(SCALED.vision, drop_path=0.0), decoder=decoder, image_token_id=IMAGE)


@pytest.fixture
def untied(tiny: PLMConfig) -> PLMConfig:
    """The other published variant: no class token, no LayerScale, an output matrix of its own, unscaled RoPE."""
    return replace(
        tiny,
        vision=replace(tiny.vision, use_cls_token=False, layer_scale_init=None),
        decoder=replace(tiny.decoder, tied=False, rope_scaling=None),
    )


@pytest.fixture
def model(tiny: PLMConfig) -> PLM:
    return initialise(build(tiny), seed=0)


@pytest.fixture
def make() -> Callable[..., Prompt]:
    """make(length, tiles=1, seed=0, supervised=4): random tokens whose tiles' placeholders start at position 3."""

    def example(length: int, tiles: int = 1, seed: int = 0, supervised: int = 4) -> Prompt:
        random = np.random.default_rng(seed)
        tokens = random.integers(2, IMAGE, length).astype(np.int32)
        tokens[3 : 3 + 4 * tiles] = IMAGE
        targets = np.full(length, -100, np.int32)
        targets[length - supervised :] = random.integers(2, IMAGE, supervised)
        zero = np.zeros(length, np.int32)
        media = random.integers(0, 256, (tiles, 3, 56, 56)).astype(np.uint8)
        return Example(tokens, targets, np.arange(length, dtype=np.int32), zero, zero), media

    return example
