"""What preprocessing makes of pictures that are odd: counted and named, or refused where the settings say so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.errors import Unusable
from components.media_files.root import MediaRoot
from components.preprocess.encode import Encoder
from plm_model.families.plm.codec import Codec
from plm_model.families.plm.settings import PLMConfig
from plm_model.families.plm.tokenizer import Tokenizer
from plm_model.packs.stored import StoreOptions
from tests.plm_model.picture_files import encoded

TOKENIZER = Path(__file__).parents[3] / "configs" / "tokenizers" / "plm_tiny" / "tokenizer.json"
ARCHITECTURE = {
    "vision": {"image_size": 28, "width": 32, "layers": 1, "heads": 2},
    "decoder": {"vocab_size": 1010, "dim": 32, "layers": 1, "heads": 2, "kv_heads": 1, "hidden_dim": 64},
    "image_token_id": 1002,
    "processor": {"vision_input_type": "thumb+tile", "max_num_tiles": 4},
}


@pytest.fixture
def encoder(tmp_path: Path) -> Encoder:
    return Encoder(Codec(Tokenizer.from_file(TOKENIZER), PLMConfig.from_dict(ARCHITECTURE)), MediaRoot(str(tmp_path)))


def row(**media: Any) -> bytes:
    turns = [{"from": "human", "value": "What?"}, {"from": "assistant", "value": "a photograph"}]
    return json.dumps({"id": "a", **media, "conversations": turns}).encode()


@pytest.fixture
def files(tmp_path: Path) -> Mapping[str, bytes]:
    noise = Image.fromarray(np.random.default_rng(3).integers(0, 256, (60, 80, 3), np.uint8)).resize((320, 240))
    whole = encoded(noise, "JPEG")
    middle = len(whole) // 2
    made = {
        "whole.jpg": whole,
        "hole.jpg": whole[:middle] + bytes(2000) + whole[middle + 2000 :],
        "empty.png": encoded(Image.new("RGBA", (40, 30)), "PNG"),
        "twelve.png": encoded(Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)), "PNG"),
        "long.png": encoded(Image.new("L", (1, 1_000_000)), "PNG"),
        "page.jpg": b"<!DOCTYPE html><html>404</html>",
    }
    for name, data in made.items():
        (tmp_path / name).write_bytes(data)
    return made


@pytest.mark.case("D7")
@pytest.mark.case("D8")
@pytest.mark.parametrize(
    ("name", "kinds"),
    [("whole.jpg", []), ("hole.jpg", ["damaged_picture"]), ("empty.png", ["blank"]), ("twelve.png", ["dark_16_bit"])],
)
def test_odd_pictures_are_used_and_noted(
    encoder: Encoder, files: Mapping[str, bytes], name: str, kinds: list[str]
) -> None:
    made = encoder.encode(row(image=name), "train.jsonl")
    assert made["media"][0]["data"] == files[name]
    assert list(made["notes"]) == kinds


@pytest.mark.case("D7")
def test_damaged_pictures_are_refused_where_the_settings_say_so(encoder: Encoder, files: Mapping[str, bytes]) -> None:
    strict = replace(encoder, options=StoreOptions(reject_damaged=True))
    with pytest.raises(Unusable, match=r"^hole\.jpg: damaged image, which preprocess\.damaged=keep would take"):
        strict.encode(row(image="hole.jpg"), "train.jsonl")
    assert list(strict.encode(row(image="whole.jpg"), "train.jsonl")["notes"]) == []


@pytest.mark.case("D18")
def test_what_is_no_picture_is_called_what_it_is(encoder: Encoder, files: Mapping[str, bytes]) -> None:
    with pytest.raises(Unusable) as raised:
        encoder.encode(row(image="page.jpg"), "train.jsonl")
    what = "a web page (HTML), as a failed download leaves it"
    assert str(raised.value) == f"page.jpg: not an image that can be read: it is {what}"


@pytest.mark.case("D9")
def test_a_picture_whose_tiles_cost_too_much_is_a_bad_row(encoder: Encoder, files: Mapping[str, bytes]) -> None:
    vision = replace(encoder.codec.config.vision, image_size=448)
    codec = replace(encoder.codec, config=replace(encoder.codec.config, vision=vision))
    with pytest.raises(Unusable) as raised:
        replace(encoder, codec=codec).encode(row(image="long.png"), "train.jsonl")
    reason = "image too large to resize: 1x1000000 is too long for its width; cut it into parts"
    assert str(raised.value) == f"long.png: {reason}"
