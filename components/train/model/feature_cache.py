"""Features of a frozen tower, kept in the host's memory: media seen before cost a copy instead of a forward pass.

A cache belongs to one rank and holds what that rank saw: with W ranks and data in another order each epoch, an item is found
in the second epoch with a chance of 1 / W. Worth it for small data and many epochs; PLM-8B's tower takes 3.9 TFLOP for an
item whose features are 3 MB. A matrix product may round an item otherwise in a larger batch, so features, and with them a
resumed run, are the same to rounding only; MFU goes on counting the tower's forward pass.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from components.train.model.towers import HasTowers

if TYPE_CHECKING:
    from components.train.settings import TrainConfig


class NotCacheable(ValueError):
    """A tower whose features change from step to step."""


class FeatureCache:
    """Features by the content of their media. The least recently used go when `limit`, in bytes, is reached."""

    def __init__(self, tower: nn.Module, limit: int) -> None:
        self.compute, self.limit, self.used = tower.forward, limit, 0
        self.kept: OrderedDict[bytes, Tensor] = OrderedDict()

    @torch.no_grad()
    def __call__(self, media: Tensor) -> Tensor:
        """uint8 [N, ...] -> the tower's features [N, ...]. Waits for the device twice: for the media, and for what is new."""
        keys = [hashlib.blake2b(item.numpy(), digest_size=16).digest() for item in media.cpu()]
        # A tower that is sharded runs on every rank, though it be for what is known.
        new = [n for n, key in enumerate(keys) if key not in self.kept] or [0]
        known = sorted(set(range(len(keys))) - set(new))
        computed: Tensor = self.compute(media[new] if known else media)
        features = computed
        if known:
            features = computed.new_empty(len(keys), *computed.shape[1:])
            features[new] = computed
            features[known] = torch.stack([self.kept[keys[n]] for n in known]).to(computed.device)
        kept = dict(zip(new, computed.cpu(), strict=True))
        for n, key in enumerate(keys):
            self._keep(key, kept.get(n))
        return features

    def _keep(self, key: bytes, feature: Tensor | None) -> None:
        if key not in self.kept:
            if feature is None:  # one that was known went just now, to make room
                return
            self.kept[key] = feature.clone()
            self.used += feature.nbytes
        self.kept.move_to_end(key)
        while self.used > self.limit:
            self.used -= self.kept.popitem(last=False)[1].nbytes


def cache_features(model: HasTowers, settings: TrainConfig) -> None:
    """Let every encoder of a model go through a cache. NotCacheable when one learns or drops paths."""
    for name, encoder in model.encoders().items():
        if any(parameter.requires_grad for parameter in encoder.parameters()):
            raise NotCacheable(f"train.feature_cache_gb: the tower {name!r} learns; freeze it or set 0")
        if any(getattr(module, "drop_path", 0.0) for module in encoder.modules()):
            raise NotCacheable(
                f"train.feature_cache_gb: the tower {name!r} drops paths; set its drop_path, or this, to 0"
            )
        encoder.forward = FeatureCache(encoder, int(settings.feature_cache_gb * 1e9))
