"""A pack of examples means the same as the examples one by one; the published sizes come out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from plm_model.families.plm.collator import collate
from plm_model.families.plm.model import PLM, MediaMismatch, build
from plm_model.families.plm.settings import PLMConfig
from plm_model.families.plm.weights import initialise
from plm_model.packs.batch import Batch
from plm_model.packs.example import Example
from tests.plm_model.model_directories import preset

Prompt = tuple[Example, np.ndarray]

PUBLISHED = {
    "1b": (291_415_040, 6_295_552, 1_533_524_992),
    "3b": (291_415_040, 12_589_056, 3_516_753_920),
    "8b": (1_740_922_624, 23_076_864, 9_794_260_736),
}


def pack(prompts: Sequence[Prompt], config: PLMConfig) -> Batch:
    return collate([example for example, _ in prompts], [tiles for _, tiles in prompts], config)


def gradients(model: PLM, batch: Batch) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    model(batch).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("size", PUBLISHED)
def test_parameter_counts_of_the_published_sizes(size: str) -> None:
    model = build(preset(size))
    counts = [sum(p.numel() for p in part.parameters()) for part in (model.vision_model, model.vision_projector, model)]
    assert tuple(counts) == PUBLISHED[size]


@pytest.mark.parametrize("size", PUBLISHED)
def test_a_published_size_is_built_without_memory_in_under_two_seconds(size: str) -> None:
    start = time.thread_time()
    build(preset(size))
    assert time.thread_time() - start < 2.0


@pytest.mark.parametrize(("size", "tensors"), [("1b", 477), ("3b", 585), ("8b", 957)])
def test_tensor_counts_of_the_published_sizes(size: str, tensors: int) -> None:
    """One less than the releases of the tied sizes, which store the output matrix twice."""
    assert len(build(preset(size)).state_dict()) == tensors


def test_parameters_carry_the_names_of_the_release(tiny: PLMConfig) -> None:
    names = set(build(tiny).state_dict())
    assert {
        "tok_embeddings.weight",
        "layers.1.attention.wq.weight",
        "layers.1.feed_forward.w2.weight",
        "layers.0.ffn_norm.weight",
        "norm.weight",
        "vision_model.class_embedding",
        "vision_model.positional_embedding",
        "vision_model.conv1.weight",
        "vision_model.ln_pre.bias",
        "vision_model.transformer.resblocks.1.attn.in_proj_weight",
        "vision_model.transformer.resblocks.1.attn.in_proj_bias",
        "vision_model.transformer.resblocks.1.attn.out_proj.weight",
        "vision_model.transformer.resblocks.0.ls_2.gamma",
        "vision_model.transformer.resblocks.0.mlp.c_proj.bias",
        "vision_projector.projector.0.weight",
        "vision_projector.projector.2.bias",
    } <= names
    assert "output.weight" not in names


def test_losses_are_the_cross_entropies_of_the_logits(model: PLM, make: Callable[..., Prompt]) -> None:
    batch = pack([make(20), make(14, seed=1)], model.config)
    targets = batch.targets[batch.targets != -100]
    expected = F.cross_entropy(model.logits(batch), targets, reduction="none")
    torch.testing.assert_close(model(batch), expected)


def test_the_chunk_of_rows_changes_nothing(model: PLM, make: Callable[..., Prompt]) -> None:
    batch = pack([make(20, supervised=9), make(14, seed=1)], model.config)
    whole = model(batch)
    model.zero_grad()
    whole.sum().backward()
    expected = model.tok_embeddings.weight.grad.clone()
    model.zero_grad()
    pieces = model(batch, chunk=3)
    pieces.sum().backward()
    torch.testing.assert_close(pieces, whole)
    torch.testing.assert_close(model.tok_embeddings.weight.grad, expected)


def test_image_features_stand_at_the_image_tokens_in_order(model: PLM, make: Callable[..., Prompt]) -> None:
    batch = pack([make(20, tiles=2), make(14, seed=1)], model.config)
    fused = model.fuse(model.lay_out(batch))
    image = batch.tokens == model.config.image_token_id
    torch.testing.assert_close(fused[image], model.features(batch.media["tiles"]).flatten(0, 1))
    assert torch.equal(fused[~image], model.tok_embeddings(batch.tokens)[~image])


def test_replacing_a_document_leaves_the_others_bit_identical(model: PLM, make: Callable[..., Prompt]) -> None:
    kept, other, changed = make(30), make(25, seed=1), make(25, seed=2)
    with torch.no_grad():
        first = model.logits(pack([kept, other, make(18, seed=3)], model.config))
        second = model.logits(pack([kept, changed, make(18, seed=3)], model.config))
    assert torch.equal(first[:4], second[:4]) and torch.equal(first[8:], second[8:])
    assert not torch.equal(first[4:8], second[4:8])


def test_a_document_of_another_length_leaves_the_others_equal(model: PLM, make: Callable[..., Prompt]) -> None:
    with torch.no_grad():
        alone = model.logits(pack([make(30)], model.config))
        among = model.logits(pack([make(28, seed=1), make(30), make(60, seed=2, tiles=3)], model.config))
    torch.testing.assert_close(among[4:8], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("variant", ["tiny", "untied"])
def test_a_pack_gives_the_sum_of_its_examples_gradients(
    variant: str, dtype: torch.dtype, tolerance: float, request: pytest.FixtureRequest, make: Callable[..., Prompt]
) -> None:
    config = request.getfixturevalue(variant)
    model = initialise(build(config), seed=0).to(dtype)
    prompts = [make(30), make(28, tiles=2, seed=1), make(12, tiles=0, seed=2), make(19, seed=3)]
    together = gradients(model, pack(prompts, config))
    alone = [gradients(model, pack([prompt], config)) for prompt in prompts]
    for name, gradient in together.items():
        expected = sum(one[name] for one in alone)
        assert (gradient - expected).norm() <= tolerance * expected.norm(), name


def test_a_text_only_pack_still_runs_the_vision_tower(model: PLM, make: Callable[..., Prompt]) -> None:
    found = gradients(model, pack([make(12, tiles=0), make(9, tiles=0, seed=1)], model.config))
    tower = [gradient for name, gradient in found.items() if name.startswith("vision_")]
    assert tower and all((gradient == 0).all() for gradient in tower)


def test_the_filler_tile_changes_no_number(model: PLM, make: Callable[..., Prompt]) -> None:
    batch = pack([make(12, tiles=0)], model.config)
    assert torch.equal(model.logits(batch), model.logits(replace(batch, media={"tiles": batch.media["tiles"][:0]})))


def test_a_pack_without_targets_has_no_losses_and_zero_gradients(model: PLM, make: Callable[..., Prompt]) -> None:
    batch = pack([make(12)], model.config)
    batch = replace(batch, targets=torch.full_like(batch.targets, -100))
    assert model(batch).shape == (0,)
    assert all((gradient == 0).all() for gradient in gradients(model, batch).values())


def test_a_wrong_number_of_placeholders_is_told_with_both_numbers(model: PLM, make: Callable[..., Prompt]) -> None:
    batch = pack([make(20, tiles=2)], model.config)
    with pytest.raises(MediaMismatch, match="8 image placeholders, but its 1 tiles give 4 features"):
        model(replace(batch, media={"tiles": batch.media["tiles"][:1]}))


@pytest.mark.parametrize("kind", ["selective", "full"])
def test_recomputing_activations_changes_no_gradient(model: PLM, make: Callable[..., Prompt], kind: str) -> None:
    batch = pack([make(20), make(14, seed=1)], model.config)
    kept = gradients(model, batch)
    for block in (*model.towers()["vision"], *model.towers()["decoder"]):
        block.recompute = kind
    again = gradients(model, batch)
    assert all(torch.equal(kept[name], again[name]) for name in kept)


def test_half_precision_weights_give_full_precision_losses(model: PLM, make: Callable[..., Prompt]) -> None:
    batch = pack([make(20)], model.config)
    full = model(batch)
    half = model.bfloat16()(batch)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, atol=0.1, rtol=0.05)


def test_the_towers_are_the_vision_blocks_and_the_decoder_layers(model: PLM) -> None:
    assert model.towers() == {"vision": [*model.vision_model.transformer.resblocks], "decoder": [*model.layers]}
