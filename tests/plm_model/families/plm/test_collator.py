from __future__ import annotations

import numpy as np
import pytest

from plm_model.families.plm.collator import collate
from plm_model.families.plm.settings import PLMConfig, VisionConfig
from plm_model.nn.config import DecoderConfig
from plm_model.packs.example import Example, example
from plm_model.packs.stored import MediaMismatch

CONFIG = PLMConfig(vision=VisionConfig(image_size=28), decoder=DecoderConfig(vocab_size=960), image_token_id=952)


def made(length: int, tiles: int = 0) -> Example:
    tokens = np.arange(1, length + 1, dtype=np.int32)
    tokens[: tiles * CONFIG.tokens_per_tile] = CONFIG.image_token_id
    return example(tokens, np.full(length, -100))


def tile(value: int, count: int = 1) -> np.ndarray:
    return np.full((count, 3, 28, 28), value, np.uint8)


def test_worked_example_of_the_docstring() -> None:
    batch = collate([made(5), made(3)], [tile(0, 0), tile(0, 0)], CONFIG)
    assert batch.tokens.tolist() == [1, 2, 3, 4, 5, 1, 2, 3]
    assert batch.doc.tolist() == [1, 1, 1, 1, 1, 2, 2, 2]
    assert batch.pos.tolist() == [0, 1, 2, 3, 4, 0, 1, 2]


def test_tiles_stand_in_the_order_of_their_placeholders() -> None:
    batch = collate([made(3, 1), made(5), made(4, 2)], [tile(1), tile(0, 0), tile(2, 2)], CONFIG)
    assert batch.media["tiles"][:, 0, 0, 0].tolist() == [1, 2, 2]
    assert batch.media["tiles"].dtype.is_signed is False


def test_text_only_pack_has_one_white_tile_that_nothing_refers_to() -> None:
    batch = collate([made(3)], [tile(0, 0)], CONFIG)
    assert batch.media["tiles"].shape == (1, 3, 28, 28)
    assert batch.media["tiles"].min() == 255
    assert not (batch.tokens == CONFIG.image_token_id).any()


def test_placeholders_that_do_not_match_the_tiles_are_counted() -> None:
    with pytest.raises(MediaMismatch, match="example 1 has 1 image placeholders, but its 2 tiles of 1 tokens need 2"):
        collate([made(3, 1), made(3, 1)], [tile(0), tile(0, 2)], CONFIG)


def test_moving_a_batch_moves_every_tensor() -> None:
    moved = collate([made(3)], [tile(0, 0)], CONFIG).to("meta")
    assert {value.device.type for value in ({**vars(moved), **moved.media}).values() if value is not moved.media} == {
        "meta"
    }
