"""One table names every tensor of a model in both layouts, and both directions undo each other."""

from __future__ import annotations

import pytest
import torch

from plm_model.families.plm.layouts.hf_keys import TABLE, from_hf, hf_name, hf_shape, our_name, our_shape, to_hf
from plm_model.families.plm.model import build
from plm_model.families.plm.settings import PLMConfig
from tests.plm_model.model_directories import SCALED, VARIANTS


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_every_tensor_has_one_name_on_the_other_side(config: PLMConfig) -> None:
    names = list(build(config).state_dict())
    theirs = [hf_name(name) for name in names]
    assert len(set(theirs)) == len(names)
    assert [our_name(name) for name in theirs] == names


def test_no_name_stands_twice_in_the_table() -> None:
    assert len({row.ours for row in TABLE}) == len({row.theirs for row in TABLE}) == len(TABLE)


def test_a_tensor_of_another_model_has_no_name() -> None:
    assert our_name("model.language_model.layers.0.self_attn.q_proj.bias") is None
    with pytest.raises(KeyError):
        hf_name("layers.0.attention.wq.bias")


def test_both_directions_undo_each_other_bit_for_bit() -> None:
    head_dim = SCALED.decoder.head_dim
    for name, parameter in build(SCALED).state_dict().items():
        tensor = torch.randn(parameter.shape)
        theirs = to_hf(name, tensor, head_dim)
        assert tuple(theirs.shape) == hf_shape(name, tensor.shape)
        assert our_shape(name, theirs.shape) == tuple(tensor.shape)
        assert torch.equal(from_hf(name, theirs, head_dim), tensor)


def test_neighbouring_pairs_become_two_halves_in_each_head() -> None:
    rows = torch.arange(8.0)[:, None].expand(8, 3)
    theirs = to_hf("layers.7.attention.wq.weight", rows, head_dim=4)
    assert theirs[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
