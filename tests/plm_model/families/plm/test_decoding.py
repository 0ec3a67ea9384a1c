"""A step from the cache is what the decoder's layers compute from the whole sequence."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from plm_model.families.plm.collator import collate
from plm_model.families.plm.decoding import Cache
from plm_model.families.plm.generation import prefill
from plm_model.families.plm.model import PLM, build
from plm_model.families.plm.settings import PLMConfig
from plm_model.families.plm.weights import initialise
from plm_model.packs.example import Example, example

Prompt = tuple[Example, np.ndarray]
STEPS = 5


class Doubled(nn.Linear):
    """A linear layer that is more than its matrix, as one with an adapter."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


@pytest.fixture
def prompts(make: Callable[..., Prompt]) -> list[Prompt]:
    return [make(20), make(33, tiles=2, seed=1), make(9, tiles=0, seed=2)]


def answers(rows: int) -> torch.Tensor:
    """Made-up tokens, [steps, rows]."""
    return torch.randint(2, 90, (STEPS, rows), generator=torch.Generator().manual_seed(0))


def stepped(model: PLM, prompts: list[Prompt]) -> torch.Tensor:
    """Scores after each of the steps, [steps, rows, V]."""
    _, step = prefill(model, prompts, STEPS)
    return torch.stack([step(tokens) for tokens in answers(len(prompts))])


def whole(model: PLM, prompts: list[Prompt]) -> torch.Tensor:
    """The same from the whole sequences, without a cache."""
    longer = []
    for (prompt, _), answer in zip(prompts, answers(len(prompts)).T.numpy(), strict=True):
        tokens = np.concatenate([prompt.tokens, answer])
        longer.append(example(tokens, np.where(np.arange(len(tokens)) < prompt.length, -100, 0)))
    logits = model.logits(collate(longer, [tiles for _, tiles in prompts], model.config))
    return logits.unflatten(0, (len(prompts), STEPS)).transpose(0, 1)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4), (torch.bfloat16, 0.1)], ids=str
)
@pytest.mark.parametrize("variant", ["tiny", "untied"])
@torch.inference_mode()
def test_steps_give_the_scores_of_the_whole_sequence(
    variant: str, dtype: torch.dtype, tolerance: float, request: pytest.FixtureRequest, prompts: list[Prompt]
) -> None:
    config: PLMConfig = request.getfixturevalue(variant)
    model = initialise(build(config), seed=0).to(dtype).eval()
    expected = whole(model, prompts)
    torch.testing.assert_close(stepped(model, prompts), expected, atol=tolerance, rtol=0)
    assert expected.std() > 0.3


@torch.inference_mode()
def test_a_layer_that_is_more_than_its_matrix_is_called(model: PLM, prompts: list[Prompt]) -> None:
    plain = stepped(model.eval(), prompts)
    for part in ("wq", "wo"):
        linear = getattr(model.layers[0].attention, part)
        linear.__class__ = Doubled
    expected = whole(model, prompts)
    torch.testing.assert_close(stepped(model, prompts), expected, atol=1e-4, rtol=0)
    assert not torch.allclose(expected, plain, atol=1e-2)


def test_the_worked_example_of_the_module(model: PLM) -> None:
    cache = Cache(model, [3, 5], room=4)
    assert cache.slots == 9 and cache.next.tolist() == [3, 14]
    seen = cache.admit()
    assert seen is not None
    assert seen.isfinite()[:, 0, 0].tolist() == [[True] * 4 + [False] * 2, [True] * 6]


def test_rows_of_one_length_need_no_mask(model: PLM) -> None:
    assert Cache(model, [5, 5], room=4).admit() is None


@torch.inference_mode()
def test_keys_and_values_stay_where_they_are(model: PLM, prompts: list[Prompt]) -> None:
    _, step = prefill(model.eval(), prompts, STEPS)
    place, before = step.cache.kept.data_ptr(), step.cache.kept.clone()
    step(torch.tensor([5, 6, 7]))
    assert step.cache.kept.data_ptr() == place
    changed = (step.cache.kept != before).flatten(3).any(-1)
    assert changed.nonzero()[:, 1:].tolist() == [[0, 20], [1, 33], [2, 9]] * len(model.layers)
