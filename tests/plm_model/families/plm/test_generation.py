"""A prompt's answer is the same in any company, and the same as without a cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from plm_model.answers.options import GenerationOptions, choose
from plm_model.families.plm.collator import collate
from plm_model.families.plm.generation import generate, likelihoods
from plm_model.families.plm.model import PLM
from plm_model.packs.example import Example

Prompt = tuple[Example, np.ndarray]


class Letters:
    """A tokenizer of 100 ids: id 40 is decoded as "<40>", and 1 stops."""

    stop_ids = (1,)

    def decode(self, ids: list[int]) -> str:
        return "".join(f"<{i}>" for i in ids)


def recomputed(model: PLM, prompt: Prompt, count: int) -> list[int]:
    """Greedy answer by running the whole sequence again for each token."""
    (example, tiles), answer = prompt, []
    for _ in range(count):
        tokens = np.append(example.tokens, answer).astype(np.int32)
        zero = np.zeros_like(tokens)
        targets = np.where(np.arange(len(tokens)) == len(tokens) - 1, 2, -100).astype(np.int32)
        whole = Example(tokens, targets, np.arange(len(tokens), dtype=np.int32), zero, zero)
        answer.append(int(model.logits(collate([whole], [tiles], model.config))[0].argmax()))
    return answer


@pytest.fixture
def prompts(make: Callable[..., Prompt]) -> list[Prompt]:
    shapes = [(20, 1), (33, 2), (9, 0), (20, 1), (12, 0), (50, 3)]
    return [make(length, tiles=tiles, seed=seed, supervised=1) for seed, (length, tiles) in enumerate(shapes)]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_batch_answers_as_each_prompt_alone(model: PLM, prompts: list[Prompt], temperature: float) -> None:
    options = GenerationOptions(max_new_tokens=12, temperature=temperature, top_p=0.9)
    together = generate(model, Letters(), prompts, options)
    assert together == [generate(model, Letters(), [prompt], options)[0] for prompt in prompts]
    assert len({tuple(answer.token_ids) for answer in together}) > 1


def test_the_cache_gives_what_recomputing_gives(model: PLM, prompts: list[Prompt]) -> None:
    class Endless(Letters):
        stop_ids = ()

    answers = generate(model, Endless(), prompts, GenerationOptions(max_new_tokens=6))
    assert [answer.token_ids for answer in answers] == [recomputed(model, prompt, 6) for prompt in prompts]


def test_a_stop_id_ends_an_answer_and_is_not_part_of_it(model: PLM, prompts: list[Prompt]) -> None:
    free = generate(model, Letters(), prompts[:1], GenerationOptions(max_new_tokens=6))[0].token_ids
    tokenizer = Letters()
    tokenizer.stop_ids = (free[3],)
    cut = free.index(free[3])
    answer = generate(model, tokenizer, prompts[:1], GenerationOptions(max_new_tokens=6))[0]
    assert answer.token_ids == free[:cut] and answer.finish_reason == "stop"


def test_a_stop_string_is_cut_off(model: PLM, prompts: list[Prompt]) -> None:
    free = generate(model, Letters(), prompts[:1], GenerationOptions(max_new_tokens=6))[0].token_ids
    stop = f"{free[2]}>"
    answer = generate(model, Letters(), prompts[:1], GenerationOptions(max_new_tokens=6, stop=[stop]))[0]
    assert answer.finish_reason == "stop"
    assert answer.text == Letters().decode(free).split(stop)[0]


def test_an_answer_ends_at_the_number_of_new_tokens_or_the_models_length(
    model: PLM, make: Callable[..., Prompt]
) -> None:
    tokenizer = Letters()
    tokenizer.stop_ids = ()
    answers = generate(model, tokenizer, [make(254, seed=1), make(20)], GenerationOptions(max_new_tokens=5))
    assert [len(answer.token_ids) for answer in answers] == [2, 5]
    assert {answer.finish_reason for answer in answers} == {"length"}


def test_a_prompt_without_room_is_refused(model: PLM, make: Callable[..., Prompt]) -> None:
    with pytest.raises(ValueError, match="256 tokens leaves no room"):
        generate(model, Letters(), [make(256)], GenerationOptions())


def test_generation_leaves_the_model_in_its_mode(model: PLM, prompts: list[Prompt]) -> None:
    model.train()
    generate(model, Letters(), prompts[:1], GenerationOptions(max_new_tokens=1))
    assert model.training


class Numbers(Letters):
    """Encodes "3 5" as the ids 3 and 5."""

    def encode(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]


def loss_of(model: PLM, prompt: Prompt, ids: list[int]) -> float:
    """The mean loss of an answer, from one pass over the whole sequence."""
    example, tiles = prompt
    tokens = np.append(example.tokens, ids).astype(np.int32)
    zero = np.zeros_like(tokens)
    place = np.arange(len(tokens), dtype=np.int32)
    targets = np.where(place >= len(example.tokens) - 1, np.append(tokens[1:], -100), -100).astype(np.int32)
    scores = model.logits(collate([Example(tokens, targets, place, zero, zero)], [tiles], model.config)).float()
    return float(torch.nn.functional.cross_entropy(scores, torch.tensor(ids)))


def test_the_likelihood_of_an_answer_is_its_loss_in_any_company(model: PLM, prompts: list[Prompt]) -> None:
    answers = ["13 5 7", "11", "14 80 4 8 21", "60 61", "5", "9 9"]
    found = likelihoods(model, Numbers(), prompts, answers)
    expected = [
        loss_of(model, prompt, Numbers().encode(answer)) for prompt, answer in zip(prompts, answers, strict=True)
    ]
    assert [loss for loss, _ in found] == pytest.approx(expected, rel=1e-4)


def test_the_answer_that_greedy_gives_is_known_as_such(model: PLM, prompts: list[Prompt]) -> None:
    (said,) = generate(model, Letters(), prompts[:1], GenerationOptions(max_new_tokens=4))
    own = " ".join(map(str, said.token_ids))
    found = likelihoods(model, Numbers(), prompts[:1] * 2, [own, f"{(said.token_ids[0] + 1) % 100}"])
    assert [greedy for _, greedy in found] == [True, False] and found[0][0] < found[1][0]


def test_an_answer_without_a_token_is_refused(model: PLM, prompts: list[Prompt]) -> None:
    with pytest.raises(ValueError, match="without a token"):
        likelihoods(model, Numbers(), prompts[:1], [""])


def test_no_prompts_no_answers(model: PLM) -> None:
    assert generate(model, Letters(), []) == []


def frequencies(probabilities: list[float], **options: Any) -> list[float]:
    """How often each id is chosen over an even grid of draws."""
    scores = torch.tensor([probabilities]).log().expand(1000, -1)
    draws = ((torch.arange(1000) + 0.5) / 1000).unsqueeze(1)
    chosen = choose(scores, draws, GenerationOptions(temperature=options.pop("temperature", 1.0), **options))
    return (chosen.bincount(minlength=len(probabilities)) / 1000).tolist()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.1, 0.4, 0.2, 0.3]),
        ({"temperature": 0.5}, [0.01 / 0.3, 0.16 / 0.3, 0.04 / 0.3, 0.09 / 0.3]),
        ({"top_k": 2}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_k": 9}, [0.1, 0.4, 0.2, 0.3]),
        ({"top_p": 0.6}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_p": 0.1}, [0, 1, 0, 0]),
        ({"top_p": 0.6, "top_k": 1}, [0, 4 / 7, 0, 3 / 7]),
    ],
    ids=str,
)
def test_sampling_follows_the_probabilities_that_are_left(options: dict, expected: list[float]) -> None:
    assert frequencies([0.1, 0.4, 0.2, 0.3], **options) == pytest.approx(expected, abs=0.0021)


def test_the_largest_draw_chooses_no_token_that_was_ruled_out() -> None:
    scores = torch.randn(200, 1000, generator=torch.Generator().manual_seed(0))
    chosen = choose(scores, torch.tensor(1 - 2**-24), GenerationOptions(temperature=1.0, top_p=0.5))
    share = scores.softmax(-1)
    more_likely = torch.where(share > share.gather(-1, chosen[:, None]), share, 0).sum(-1)
    assert (more_likely < 0.5).all()


@pytest.mark.parametrize(
    "wrong",
    [{"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_k": 0}, {"stop": "abc"}, {"stop": [""]}],
)
def test_options_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GenerationOptions(**wrong)
