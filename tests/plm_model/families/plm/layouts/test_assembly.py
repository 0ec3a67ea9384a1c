"""A Llama and a Perception Encoder become a PLM; what starts afresh is named, and nothing else may be missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from plm_model.families.plm.layouts.assembly import assemble, continued
from plm_model.families.plm.layouts.detect import read_directory
from plm_model.families.plm.settings import PLMConfig
from plm_model.families.plm.weights import load
from plm_model.model_directory.safetensors_writer import WeightsError
from tests.plm_model.model_directories import (
    SCALED,
    STAGE_1,
    UNTIED,
    VARIANTS,
    encoder,
    llama,
    own_directory,
    random_state,
)


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize(("prefix", "wrapper"), [("module.visual.", "state_dict"), ("visual.", "weights"), ("", None)])
def test_every_tensor_comes_from_its_source(
    config: PLMConfig, prefix: str, wrapper: str | None, tmp_path: Path
) -> None:
    decoder, tower = llama(tmp_path, config), encoder(tmp_path / "pe.pt", config, prefix, wrapper)
    opened = assemble(config, tmp_path / "llama", tmp_path / "pe.pt", seed=3)
    fresh = random_state(config, 3)
    for name, tensor in opened.stream():
        source = decoder.get(name, tower.get(name.removeprefix("vision_model."), fresh[name]))
        assert torch.equal(tensor, source)
    assert "vision_projector.projector.0.weight" in opened.notes[0]
    assert not load(opened, "cpu", torch.float32).training


def test_position_embeddings_are_resized_to_the_grid_and_the_class_token_keeps_its_own(tmp_path: Path) -> None:
    llama(tmp_path, SCALED)
    smaller = replace(SCALED, vision=replace(SCALED.vision, image_size=28))
    table = encoder(tmp_path / "pe.pt", smaller)["positional_embedding"]
    state = dict(assemble(SCALED, tmp_path / "llama", tmp_path / "pe.pt").stream())
    resized = state["vision_model.positional_embedding"]
    assert resized.shape == (17, 64) and torch.equal(resized[0], table[0])
    plane = F.interpolate(table[1:].T.reshape(1, 64, 2, 2), size=(4, 4), mode="bilinear", align_corners=False)
    torch.testing.assert_close(resized[1:], plane.flatten(2)[0].T)


@pytest.mark.case("E3")
def test_a_llama_whose_output_is_not_its_embedding_does_not_become_a_tied_model(tmp_path: Path) -> None:
    state = llama(tmp_path, SCALED)
    encoder(tmp_path / "pe.pt", SCALED)
    torch.save(state | {"output.weight": state["output.weight"] + 1}, tmp_path / "llama" / "consolidated.00.pth")
    with pytest.raises(
        WeightsError, match=r"output\.weight is not the embedding; set architecture\.decoder\.tied: false"
    ):
        assemble(SCALED, tmp_path / "llama", tmp_path / "pe.pt")


def test_layer_scale_that_the_encoder_lacks_starts_at_its_value_and_is_named(tmp_path: Path) -> None:
    llama(tmp_path, SCALED)
    encoder(tmp_path / "pe.pt", STAGE_1)
    opened = assemble(SCALED, tmp_path / "llama", tmp_path / "pe.pt")
    gamma = dict(opened.stream())["vision_model.transformer.resblocks.1.ls_2.gamma"]
    assert (gamma == 0.1).all()
    assert "vision_model.transformer.resblocks.*.ls_2.gamma" in opened.notes[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"visual.ln_pre.bias": None}, r"pe\.pt: tensor ln_pre.bias is missing"),
        ({"visual.odd.weight": torch.ones(2)}, r"pe\.pt: tensor odd.weight is not part of the model"),
        ({"visual.ln_pre.bias": torch.ones(2)}, r"tensor ln_pre.bias has shape \(2,\), the model's is \(64,\)"),
        ({"visual.positional_embedding": torch.ones(12, 64)}, r"tensor positional_embedding has shape \(12, 64\)"),
    ],
)
def test_a_tensor_of_the_encoder_that_does_not_fit_is_named(
    change: dict[str, torch.Tensor | None], message: str, tmp_path: Path
) -> None:
    llama(tmp_path, UNTIED)
    encoder(tmp_path / "pe.pt", UNTIED, "visual.", None)
    state = torch.load(tmp_path / "pe.pt", weights_only=True) | change
    torch.save({name: tensor for name, tensor in state.items() if tensor is not None}, tmp_path / "pe.pt")
    with pytest.raises(WeightsError, match=message):
        assemble(UNTIED, tmp_path / "llama", tmp_path / "pe.pt")


def test_a_later_stage_goes_on_with_layer_scale_and_another_pooling(tmp_path: Path) -> None:
    own_directory(tmp_path, STAGE_1)
    before = read_directory(tmp_path)
    after = continued(before, SCALED)
    assert after.config == SCALED and "ls_1.gamma" in after.notes[0]
    state = dict(after.stream())
    assert all(torch.equal(state[name], tensor) for name, tensor in before.stream())
    load(after, "cpu", torch.float32)


def test_another_architecture_does_not_go_on(tmp_path: Path) -> None:
    own_directory(tmp_path, SCALED)
    deeper = replace(SCALED, decoder=replace(SCALED.decoder, layers=3))
    with pytest.raises(WeightsError, match=r"tensor layers\.2\.attention_norm\.weight is missing"):
        continued(read_directory(tmp_path), deeper)
