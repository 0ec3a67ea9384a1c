from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from components.train.model.assembly import select
from components.train.model.feature_cache import FeatureCache, NotCacheable, cache_features
from components.train.settings import TrainConfig
from plm_model.families.plm.collator import collate
from plm_model.families.plm.model import build
from plm_model.families.plm.weights import initialise
from tests.components.train.test_gradients import EXAMPLES, odd_config

FROZEN = TrainConfig(freeze=("^vision_model",), feature_cache_gb=1.0)


class Counting(nn.Module):
    """A tower that counts the tiles it sees."""

    seen = 0

    def forward(self, tiles: Tensor) -> Tensor:
        self.seen += len(tiles)
        return tiles.flatten(1).float().cumsum(1)


def tiles(*numbers: int) -> Tensor:
    return torch.stack([torch.full((3, 4, 4), number, dtype=torch.uint8) for number in numbers])


def test_a_tile_is_computed_once_and_comes_back_in_its_place() -> None:
    tower = Counting()
    cache = FeatureCache(tower, 10**6)
    for asked in (tiles(1, 2), tiles(2, 3, 1, 4), tiles(4)):
        assert torch.equal(cache(asked), asked.flatten(1).float().cumsum(1))
    assert tower.seen == 2 + 2 + 1  # the last is known, and computed all the same: other ranks may wait for this one


def test_the_least_recently_used_goes_when_the_limit_is_reached() -> None:
    tower = Counting()
    cache = FeatureCache(tower, 2 * 48 * 4)
    for number in (1, 2, 1, 3):
        cache(tiles(number))
    assert len(cache.kept) == 2 and cache.used <= cache.limit
    seen = tower.seen
    cache(tiles(1, 3, 2))
    assert tower.seen == seen + 1


def loss_and_gradients(model: Any) -> dict[str, Tensor]:
    batch = collate(*zip(*EXAMPLES, strict=True), odd_config())
    model.zero_grad(set_to_none=True)
    loss = model(batch).sum()
    loss.backward()
    return {"loss": loss.detach(), **{n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}}


def test_cached_features_give_the_loss_and_the_gradients_of_fresh_ones() -> None:
    model = initialise(build(odd_config()), seed=0).train()
    select(model, FROZEN)
    fresh = loss_and_gradients(model)
    cache_features(model, FROZEN)
    for _ in ("filled", "found"):
        again = loss_and_gradients(model)
        assert fresh.keys() == again.keys()
        assert all(torch.allclose(again[name], fresh[name], rtol=1e-5, atol=1e-6) for name in fresh)


@pytest.mark.parametrize(
    ("drop_path", "settings", "message"),
    [(0.0, replace(FROZEN, freeze=()), "'vision' learns"), (0.1, FROZEN, "'vision' drops paths")],
)
def test_a_tower_whose_features_change_is_refused(drop_path: float, settings: TrainConfig, message: str) -> None:
    model = build(odd_config(drop_path))
    select(model, settings)
    with pytest.raises(NotCacheable, match=message):
        cache_features(model, settings)
