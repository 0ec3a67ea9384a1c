"""From a model on `meta` to one that trains: adapters, what is frozen, dtypes, shards, weights, optimizer, in this order."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

import torch
from torch import nn

from components.train.model.feature_cache import cache_features
from components.train.model.lora import add_adapters, initialise_adapters
from components.train.model.parallel import Group, MeshShape, cast, shard, storage_device
from components.train.model.towers import compile_blocks, recompute
from components.train.update.optimizer import ShardedAdamW
from components.train.update.param_groups import freeze

if TYPE_CHECKING:
    from components.train.model.towers import Trainable
    from components.train.settings import TrainConfig


class LoadWeights(Protocol):
    """Fills a model from the base checkpoint; `added` names the parameters that the checkpoint does not have."""

    def __call__(self, model: nn.Module, *, device: torch.device, added: frozenset[str]) -> None: ...


def assemble(model: Trainable, load: LoadWeights, settings: TrainConfig, group: Group) -> ShardedAdamW:
    """Make a model on `meta` ready for training, in place, never whole on one rank; returns its optimizer."""
    added = select(model, settings)
    cast(model, settings)
    shard(model, group, settings)
    load(model, device=storage_device(group, settings), added=added)
    if added:
        initialise_adapters(model, settings.seed)
    if settings.feature_cache_gb:
        cache_features(model, settings)
    if settings.compile:
        compile_blocks(model)
    if settings.exact_elastic and group.device.type == "cuda":
        use_deterministic_kernels()
    return ShardedAdamW(model, settings, group.device)


def use_deterministic_kernels() -> None:
    """Have CUDA's kernels add in one order; those that cannot only warn. For the whole process, before its first product."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)


def select(model: Trainable, settings: TrainConfig) -> frozenset[str]:
    """Add adapters, freeze, and set what is recomputed; returns the names of added parameters.

    ValueError for a pattern or a tower that the model does not have.
    """
    added = add_adapters(model, settings.lora) if settings.lora else frozenset()
    freeze(model, settings)
    recompute(model, settings.recompute)
    return added


def check_settings(model: Trainable, settings: TrainConfig, world: int) -> None:
    """ValueError for settings that do not fit a model on `meta` or the number of ranks. Changes the model."""
    select(model, settings)
    if settings.feature_cache_gb:
        cache_features(model, settings)
    MeshShape.of(world, settings.parallel.replicas)
