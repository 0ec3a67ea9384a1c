"""`plm generate`: the same answer from every layout, for images, a video or none, and one line for what is wrong."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flows.cli import main
from plm_model.answers.options import GenerationOptions
from plm_model.families.plm.answer import image_prompt, text_prompt, video_prompt
from plm_model.families.plm.codec import Codec
from plm_model.families.plm.generation import generate
from plm_model.families.plm.layouts.detect import open_model, read_directory, write_directory
from tests.plm_model.model_directories import own_directory
from tests.plm_model.video_files import write_video

QUESTION = "Which digit?"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same model in each layout."""
    root = tmp_path_factory.mktemp("checkpoints")
    own_directory(root / "plm")
    for layout in ("hf", "meta"):
        write_directory(read_directory(root / "plm"), root / layout, layout)
    return {layout: root / layout for layout in ("plm", "hf", "meta")}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("pictures")
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
    return [str(root / f"{number}.png") for number in range(2)]


def ask(place: Path, *more: str, media_type: str = "image") -> int:
    fixed = ["--ckpt", str(place), "--media_type", media_type, "--question", QUESTION, "--max_gen_len", "8"]
    return main(["generate", *fixed, *more])


def answered(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    return line


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_video(tmp_path_factory.mktemp("video") / "clip.mp4", 30, fps=10))


def expected(place: Path, pictures: list[str], clip: tuple[str, float | None] | None = None) -> str:
    """The answer, without the command; a clip is a file and where it starts."""
    model, tokenizer = open_model(place)
    codec = Codec(tokenizer, model.config)
    if clip:
        prompt = video_prompt(codec, QUESTION, *clip)
    elif pictures:
        prompt = image_prompt(codec, QUESTION, [Image.open(path) for path in pictures])
    else:
        prompt = text_prompt(codec, QUESTION)
    return generate(model, tokenizer, [prompt], GenerationOptions(max_new_tokens=8))[0].text


@pytest.mark.parametrize("layout", ["plm", "hf", "meta"])
def test_every_layout_gives_the_models_answer(
    layout: str, places: dict[str, Path], pictures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(places[layout], "--media_path", pictures[0]) == 0
    assert capsys.readouterr().out == f"Generation:\n{expected(places['plm'], pictures[:1])}\n"


def test_several_images_and_none_are_answered(
    places: dict[str, Path], pictures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(places["plm"], "--media_path", *pictures, "--json") == 0
    assert answered(capsys)["answer"] == expected(places["plm"], pictures)
    assert ask(places["plm"], "--json", media_type="text") == 0
    assert answered(capsys)["answer"] == expected(places["plm"], [])


def test_options_reach_the_generator(
    places: dict[str, Path], pictures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    sampled = ("--temperature", "2", "--top_k", "50", "--top_p", "0.9", "--json", "--media_path", pictures[0])
    answers = []
    for seed in ("1", "1", "2"):
        assert ask(places["plm"], "--seed", seed, *sampled) == 0
        answers.append(answered(capsys)["answer"])
    assert answers[0] == answers[1] != answers[2]
    whole = expected(places["plm"], pictures[:1])
    assert ask(places["plm"], "--until", whole[2:4], "--json", "--media_path", pictures[0]) == 0
    result = answered(capsys)
    assert result["answer"] == whole[: whole.index(whole[2:4])] and result["finish_reason"] == "stop"


def test_a_video_and_a_part_of_it_are_answered(
    places: dict[str, Path], clip: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(places["plm"], "--media_path", clip, "--json", media_type="video") == 0
    assert answered(capsys)["answer"] == expected(places["plm"], [], (clip, None))
    assert ask(places["plm"], "--media_path", clip, "--start_time", "2", "--json", media_type="video") == 0
    assert answered(capsys)["answer"] == expected(places["plm"], [], (clip, 2.0))


@pytest.mark.parametrize(
    ("media_type", "more", "message"),
    [
        ("video", [], "needs one file as --media_path, not 0"),
        ("video", ["--media_path", "nowhere.mp4"], "nowhere.mp4: "),
        ("video", ["--media_path", __file__], "test_generate.py: "),
        ("text", ["--start_time", "1"], "--start_time and --end_time are for --media_type video"),
        ("image", [], "needs --media_path"),
        ("text", ["--media_path", "x.png"], "takes no --media_path"),
        ("image", ["--media_path", "nowhere.png"], "nowhere.png: cannot read the image"),
        ("image", ["--media_path", __file__], "test_generate.py: not an image"),
        ("text", ["--top_p", "7"], "top_p is 7.0"),
    ],
)
def test_what_is_wrong_is_one_line(
    media_type: str, more: list[str], message: str, places: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(places["plm"], *more, media_type=media_type) == 2
    assert message in error_of(capsys)


@pytest.mark.parametrize("command", ["export", "generate"])
def test_help_takes_under_a_second_of_cpu(command: str) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = [sys.executable, "-m", "flows.cli", command, "--help"]
    ran = subprocess.run(run, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "usage: plm" in ran.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0
