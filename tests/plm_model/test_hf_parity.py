"""With the same weights, our logits are those of `transformers`' Perception LM: in packs, with padding, with video frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from plm_model.families.plm.collator import collate
from plm_model.families.plm.layouts.hf_keys import from_hf, hf_name
from plm_model.families.plm.model import PLM, build
from plm_model.families.plm.settings import PLMConfig
from plm_model.packs.example import Example
from tests.plm_model.model_directories import IDS, VARIANTS, reference

pytest.importorskip("timm")

Make = Callable[..., tuple[Example, np.ndarray]]


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS)
def pair(request: pytest.FixtureRequest) -> tuple[PLM, Any]:
    """Our model and theirs, with the same weights."""
    config: PLMConfig = request.param
    theirs = reference(config)
    state = theirs.state_dict()
    ours = build(config, "cpu").eval()
    named = ((name, from_hf(name, state[hf_name(name)], config.decoder.head_dim)) for name in ours.state_dict())
    ours.load_state_dict(dict(named))
    return ours, theirs


@pytest.fixture
def example(make: Make) -> Make:
    """As `make`, with the image token of the reference's vocabulary and a score wanted at every position."""

    def made(length: int, **more: Any) -> tuple[Example, np.ndarray]:
        found, tiles = make(length, **more)
        tokens = np.where(found.tokens == 90, 1002, found.tokens).astype(np.int32)
        return replace(found, tokens=tokens, targets=np.zeros_like(tokens)), tiles

    return made


def pixels(tiles: np.ndarray) -> torch.Tensor:
    return ((torch.from_numpy(tiles).float() / 255 - 0.5) / 0.5)[None]


def scores(model: PLM, examples: list[tuple[Example, np.ndarray]]) -> list[torch.Tensor]:
    """Our logits at every position of a pack, an example each."""
    batch = collate([one for one, _ in examples], [tiles for _, tiles in examples], model.config)
    with torch.no_grad():
        return list(model.logits(batch).split([one.length for one, _ in examples]))


def close(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    return bool(theirs.std() > 0.1)


@pytest.mark.parametrize("tiles", [1, 5])
def test_one_example_of_several_tiles(tiles: int, pair: tuple[PLM, Any], example: Make) -> None:
    one, media = example(40, tiles=tiles)
    with torch.no_grad():
        theirs = pair[1](input_ids=torch.from_numpy(one.tokens).long()[None], pixel_values=pixels(media)).logits[0]
    assert close(scores(pair[0], [(one, media)])[0], theirs)


def test_a_text_without_an_image(pair: tuple[PLM, Any], example: Make) -> None:
    one, media = example(15, tiles=0)
    with torch.no_grad():
        theirs = pair[1](input_ids=torch.from_numpy(one.tokens).long()[None]).logits[0]
    assert close(scores(pair[0], [(one, media)])[0], theirs)


def test_frames_of_a_video(pair: tuple[PLM, Any], example: Make) -> None:
    one, frames = example(60, tiles=8)
    ids = torch.from_numpy(one.tokens).long()[None]
    ids = torch.where(ids == 1002, IDS["video"], ids)
    with torch.no_grad():
        theirs = pair[1](input_ids=ids, pixel_values_videos=pixels(frames)).logits[0]
    assert close(scores(pair[0], [(one, frames)])[0], theirs)


@pytest.mark.parametrize("side", ["left", "right"])
def test_our_pack_against_their_padded_batch(side: str, pair: tuple[PLM, Any], example: Make) -> None:
    examples = [example(n, tiles=t, seed=n) for n, t in ((40, 3), (17, 1), (28, 2), (9, 0))]
    longest = max(one.length for one, _ in examples)
    ids = torch.full((len(examples), longest), IDS["end_of_text"])
    mask = torch.zeros_like(ids)
    places = [slice(longest - one.length, longest) if side == "left" else slice(one.length) for one, _ in examples]
    for row, ((one, _), place) in enumerate(zip(examples, places, strict=True)):
        ids[row, place] = torch.from_numpy(one.tokens).long()
        mask[row, place] = 1
    media = pixels(np.concatenate([tiles for _, tiles in examples]))
    with torch.no_grad():
        theirs = pair[1](input_ids=ids, attention_mask=mask, pixel_values=media).logits
    for row, ours in enumerate(scores(pair[0], examples)):
        assert close(ours, theirs[row, places[row]])
