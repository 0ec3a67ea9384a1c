"""Questions about every kind of media become prompts, and are answered alike alone and in one batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plm_model.answers.options import GenerationOptions
from plm_model.families.plm.answer import Prompt, image_prompt, prompt, text_prompt, video_prompt
from plm_model.families.plm.codec import Codec
from plm_model.families.plm.generation import generate
from plm_model.families.plm.model import build
from plm_model.families.plm.tiles import tile_image, video_tiles
from plm_model.families.plm.weights import initialise
from plm_model.media.video import VideoError
from plm_model.records.turns import RecordError
from tests.plm_model.model_directories import SCALED, tokenizer
from tests.plm_model.video_files import write_video

CONFIG = replace(SCALED, processor=replace(SCALED.processor, max_num_tiles=4, max_video_frames=6))
TOKENIZER = tokenizer()
CODEC = Codec(TOKENIZER, CONFIG)
PER_TILE = CONFIG.tokens_per_tile
IMG = "<|image|>"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "clip.mp4", 30, fps=10)


def photo(seed: int, size: tuple[int, int] = (90, 40)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def asked(prompt: Prompt) -> str:
    """The question as the model reads it, a tile's placeholders written once."""
    text = TOKENIZER.decode(prompt[0].tokens, skip_special=False)
    question = text.split("<|start_header_id|>user<|end_header_id|>\n\n")[1].split("<|eot_id|>")[0]
    return question.replace(IMG * PER_TILE, IMG)


def test_one_image_comes_first_as_all_its_tiles() -> None:
    found = image_prompt(CODEC, "What is <image> this?", [photo(0)])
    assert asked(found) == IMG * len(found[1]) + "What is  this?"
    assert np.array_equal(found[1], tile_image(photo(0), CONFIG.processor, 56))


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("a <image> b <image>?", f"a {IMG} b {IMG}?"),
        ("a b?", f"{IMG}{IMG}a b?"),
        ("a <image> b?", f"{IMG}{IMG}a  b?"),
        ("<image><image><image>a?", f"{IMG}{IMG}a?"),
    ],
)
def test_tags_place_several_images_when_there_is_one_for_each(question: str, expected: str) -> None:
    found = image_prompt(CODEC, question, [photo(0), photo(1)])
    assert asked(found) == expected and len(found[1]) == 2


def test_frames_come_first_unless_each_has_its_tag(clip: Path) -> None:
    assert asked(video_prompt(CODEC, "What happens?", clip)) == IMG * 6 + "What happens?"
    assert asked(video_prompt(CODEC, "from <image> on: " * 6, clip)) == f"from {IMG} on: " * 6


def test_a_part_of_a_video_gives_that_parts_frames(clip: Path) -> None:
    part = video_prompt(CODEC, "What?", clip, 1.0, 2.0)[1]
    assert np.array_equal(part, video_tiles(clip, CONFIG.processor, 56, 1.0, 2.0))
    with pytest.raises(VideoError, match=r"clip.mp4: start_time 9 s is after the end"):
        video_prompt(CODEC, "What?", clip, 9.0)


def test_a_question_that_does_not_fit_is_refused() -> None:
    with pytest.raises(RecordError, match="leaves no room below 1,024"):
        text_prompt(CODEC, "why? " * 1000)


def test_a_tag_is_no_special_token_where_there_is_no_media() -> None:
    found = prompt(CODEC, f"what does {IMG} mean?", [])
    assert CONFIG.image_token_id not in found[0].tokens and found[1].shape == (0, 3, 56, 56)


def test_video_images_and_text_in_one_batch_are_answered_as_alone(clip: Path) -> None:
    model = initialise(build(CONFIG), seed=0).eval()
    prompts = [
        video_prompt(CODEC, "What is happening in the video?", clip),
        image_prompt(CODEC, "Describe the image.", [photo(0)]),
        text_prompt(CODEC, "How many days has a week?"),
        image_prompt(CODEC, "Is <image> larger than <image>?", [photo(1), photo(2)]),
    ]
    options = GenerationOptions(max_new_tokens=12)
    together = generate(model, TOKENIZER, prompts, options)
    assert together == [generate(model, TOKENIZER, [one], options)[0] for one in prompts]
    assert len({tuple(answer.token_ids) for answer in together}) > 1
