"""The published weights give the published answers: `pytest tests/plm_model/test_published_answers.py --weights DIR`.

DIR holds Perception-LM-1B, -3B and -8B (any layout), and from the original's examples `14496_0.PNG`,
`GUWR5TyiY-M_000012_000022.mp4` and, as `fire_hydrant.jpg`, the image of its grounding notebook. What is not there is skipped.
Answers are greedy and compared by what they must name: the published ones come from other kernels, some from 4-bit weights.
"""

from __future__ import annotations

import gc
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from components.evaluate.ask import answer
from plm_model.families.plm.layouts.detect import read_directory

pytestmark = pytest.mark.weights

CHART, CLIP, PHOTO = "14496_0.PNG", "GUWR5TyiY-M_000012_000022.mp4", "fire_hydrant.jpg"
CATEGORIES = "step, horror, mood, and lumber"
HYDRANT = (0.040, 0.482, 0.112, 0.576)

ANSWERS = [
    ("1B", CHART, "Describe the bar plot in the image.", 18, ["bar plot", CATEGORIES]),
    ("1B", CLIP, "Can you describe the video in detail?", 18, ["group of people", "green shirts", "jump rope"]),
    ("3B", CHART, "Describe the bar plot in the image.", 256, ["bar graph", "four", CATEGORIES, "0 to 10", "of 2"]),
    ("8B", CLIP, "What is happening in the video?", 256, ["skipping rope", "basketball court", "blue center circle"]),
]


@pytest.fixture
def given(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Path]]:
    """A file or model of the directory that the command line names; the test is skipped where it is absent."""
    root = request.config.getoption("--weights")

    def found(name: str) -> Path:
        if root is None:
            pytest.skip("needs --weights DIR")
        if not (Path(root) / name).exists():
            pytest.skip(f"{Path(root) / name} is not there")
        return Path(root) / name

    yield found
    gc.collect()
    torch.cuda.empty_cache()


@pytest.mark.parametrize(("size", "file", "question", "tokens", "named"), ANSWERS)
def test_published_answer(
    size: str, file: str, question: str, tokens: int, named: list[str], given: Callable[[str], Path]
) -> None:
    media = "video" if file == CLIP else "image"
    ckpt, path = given(f"Perception-LM-{size}"), given(file)
    said = answer(str(ckpt), media, [str(path)], question, max_gen_len=tokens)["answer"]
    assert not [words for words in named if words not in said], said


def test_published_box(given: Callable[[str], Path], repository: Path) -> None:
    grounding = runpy.run_path(str(repository / "configs/walkthroughs/grounding.py"), run_name="walkthrough")
    ckpt, image = given("Perception-LM-8B"), Image.open(given(PHOTO)).convert("RGB")
    box = grounding["find"](grounding["asker"](str(ckpt), 64), image, "white fire hydrant in the back")
    sides = (image.width, image.height) * 2
    assert overlap(box, tuple(share * side for share, side in zip(HYDRANT, sides, strict=True))) > 0.5, box


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Intersection over union of two boxes (x1, y1, x2, y2)."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def test_published_token_ids(given: Callable[[str], Path]) -> None:
    tokenizer = read_directory(given("Perception-LM-1B")).tokenizer
    assert tokenizer.encode("This is a test sentence.") == [2028, 374, 264, 1296, 11914, 13]
    assert tokenizer.encode("\n\n") == [271]
    assert [tokenizer.encode(role) for role in ("user", "system", "assistant")] == [[882], [9125], [78191]]
    assert (tokenizer.bos_id, tokenizer.eos_text_id, tokenizer.image_id, tokenizer.eot_id) == (
        128000,
        128001,
        128002,
        128009,
    )
    assert tokenizer.vocab_size == 128256
