"""Blocks of a library that knows nothing of us are found by structure, and computed again like ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import LlamaConfig, LlamaForCausalLM

from components.train.model.parallel import Group, shard
from components.train.model.towers import UnknownTower, compile_blocks, recompute
from components.train.settings import TrainConfig
from plm_model.nn.structure import towers_by_structure


class Foreign(nn.Module):
    """A tiny Llama of `transformers`, with towers by structure as a family would give them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2
        )
        self.inner = LlamaForCausalLM(config)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = self.inner(input_ids=tokens, labels=tokens, use_cache=False).loss
        return loss

    def towers(self) -> dict[str, list[nn.Module]]:
        return towers_by_structure(self)

    def encoders(self) -> dict[str, nn.Module]:
        return {}


TOKENS = torch.arange(12).reshape(1, 12)


def gradients(model: Foreign) -> dict[str, torch.Tensor]:
    model(TOKENS).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def test_the_blocks_of_a_foreign_model_are_its_layers() -> None:
    (blocks,) = Foreign().towers().values()
    assert list(Foreign().towers()) == ["inner.model.layers"] and len(blocks) == 3


def test_a_list_inside_of_a_block_is_a_part_of_it() -> None:
    def expert() -> nn.Module:
        return nn.Linear(2, 2)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList([expert(), expert()])

    model = nn.Module()
    model.layers = nn.ModuleList([Block(), Block()])
    model.heads = nn.ModuleList([expert()])
    assert list(towers_by_structure(model)) == ["layers"]


@pytest.mark.parametrize("kind", ["full", "selective"])
def test_recomputed_blocks_give_the_same_gradients(kind: Literal["full", "selective"]) -> None:
    kept, runs = gradients(Foreign()), 0

    def count(module: nn.Module, inputs: Any) -> None:
        nonlocal runs
        runs += 1

    model = Foreign()
    recompute(model, {"inner.model.layers": kind})
    model.inner.model.layers[0].mlp.register_forward_pre_hook(count)
    again = gradients(model)
    assert again.keys() == kept.keys() and all(torch.equal(again[name], kept[name]) for name in kept)
    assert runs == 2, "once forward, once more for the backward pass"


def test_a_tower_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(UnknownTower, match=r"no tower 'decoder'; it has inner\.model\.layers"):
        recompute(Foreign(), {"decoder": "full"})


def test_compiled_blocks_are_the_foreign_ones() -> None:
    model = Foreign()
    before = [block.forward for block in model.inner.model.layers]
    compile_blocks(model)
    assert not [
        block for block, forward in zip(model.inner.model.layers, before, strict=True) if block.forward == forward
    ]


def sharded_gradients(rank: int, folder: str, compiled: bool) -> None:
    """On one rank of two, with the same tokens as the other: half of the summed gradients of recomputed blocks."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    model = Foreign()
    recompute(model, {"inner.model.layers": "full"})
    shard(model, Group.current(torch.device("cpu")), TrainConfig(dtype="float32"))
    if compiled:
        compile_blocks(model)
    found = {}
    for name, gradient in gradients(model).items():
        assert isinstance(gradient, DTensor) and gradient.to_local().numel() < gradient.numel()
        found[name] = gradient.full_tensor() / 2
    torch.save(found, f"{folder}/rank-{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.e2e)])
def test_foreign_blocks_on_two_ranks_give_the_gradients_of_one(tmp_path: Path, compiled: bool) -> None:
    mp.spawn(sharded_gradients, (str(tmp_path), compiled), nprocs=2)
    alone = gradients(Foreign())
    for rank in range(2):
        found = torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True)
        assert found.keys() == alone.keys()
        for name, gradient in alone.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-7)
