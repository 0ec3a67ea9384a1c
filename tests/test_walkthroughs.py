"""The walkthroughs run as they stand, on a model that knows nothing and on one that was taught a box."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from plm_model.families.plm.codec import Codec
from plm_model.families.plm.collator import collate
from plm_model.families.plm.model import build
from plm_model.families.plm.tiles import tile_images
from plm_model.families.plm.weights import initialise, save_model
from plm_model.records.record import parse_record
from tests.plm_model.model_directories import SCALED, tokenizer
from tests.plm_model.video_files import write_video

CONFIG = replace(SCALED, processor=replace(SCALED.processor, max_num_tiles=1, max_video_frames=4))
SIZE = (480, 640)
BOX_TEXT = "[040,482,112,576]"


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(SIZE).save(path)
    return path


@pytest.fixture(scope="module")
def untaught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("untaught")
    save_model(initialise(build(CONFIG), seed=0), CONFIG, tokenizer(), place)
    return place


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, photo: Path) -> Path:
    """A model trained to answer the first question about the photo with a box, and the second with a word."""
    questions = (grounding("FIND").format(what="the fire hydrant"), grounding("DESCRIBE").format(box=BOX_TEXT))
    codec, data = Codec(tokenizer(), CONFIG), photo.read_bytes()
    tiles = tile_images([data], CONFIG.processor, 56)
    examples = []
    for question, answer in zip(questions, (BOX_TEXT, "hydrant"), strict=True):
        turns = [{"from": "human", "value": question}, {"from": "assistant", "value": answer}]
        row = {"id": "0", "image": "photo.png", "conversations": turns}
        examples.append(codec.encode(parse_record(row), [len(tiles)]))
    batch = collate(examples, [tiles, tiles], CONFIG)
    model = initialise(build(CONFIG), seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        model(batch).mean().backward()
        optimizer.step()
    place = tmp_path_factory.mktemp("taught")
    save_model(model, CONFIG, tokenizer(), place)
    return place


def walkthrough(name: str) -> dict:
    return runpy.run_path(f"configs/walkthroughs/{name}.py", run_name="walkthrough")


def grounding(name: str) -> str:
    return walkthrough("grounding")[name]


@pytest.fixture
def run(untaught: Path) -> Callable[..., int]:
    def ran(name: str, *arguments: str | Path, ckpt: Path = untaught) -> int:
        fixed = ["--ckpt", str(ckpt), "--max_gen_len", "24"]
        return walkthrough(name)["main"]([*fixed, *map(str, arguments)])

    return ran


def test_images_and_videos_get_their_captions(
    run: Callable[..., int], photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_video(tmp_path / "clip.mp4", 20, fps=10)
    assert run("captioning", photo, clip) == 0
    asked = [line for line in capsys.readouterr().out.splitlines() if " · " in line]
    assert len(asked) == 4 and sum(str(clip) in line for line in asked) == 2


def test_a_file_that_is_no_image_is_named(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("captioning", Path(__file__)) == 2
    assert "test_walkthroughs.py: not an image" in capsys.readouterr().err


def test_what_is_found_is_drawn_and_described(
    run: Callable[..., int], taught: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found.png"
    assert run("grounding", "--image", photo, "--find", "the fire hydrant", "--out", out, ckpt=taught) == 0
    assert capsys.readouterr().out.splitlines()[:2] == ["box: 19.2, 308.5, 53.8, 368.6", "hydrant"]
    changed = (np.asarray(Image.open(out)) != np.asarray(Image.open(photo))).any(-1)
    rows, columns = changed.nonzero()
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (19, 308, 53, 368)


def test_an_answer_without_a_box_is_shown(
    run: Callable[..., int], photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("grounding", "--image", photo, "--find", "the fire hydrant") == 1
    assert "error: the answer holds no box: '" in capsys.readouterr().err


def test_a_given_region_is_described(
    run: Callable[..., int], photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "box.png"
    assert run("grounding", "--image", photo, "--box", "40", "300", "90", "360", "--out", out) == 0
    assert capsys.readouterr().out.startswith("box: 40.0, 300.0, 90.0, 360.0\n") and out.exists()


def test_a_box_outside_the_image_is_refused(
    run: Callable[..., int], photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("grounding", "--image", photo, "--box", "40", "300", "900", "360") == 2
    assert "outside the image of 480x640" in capsys.readouterr().err
