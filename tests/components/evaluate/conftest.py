"""A model that answers something, for the tests of evaluations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from components.artifacts.artifact import Artifact, StepKey
from components.artifacts.store import ArtifactStore
from plm_model.families.plm.settings import PLMConfig, ProcessorConfig, VisionConfig
from plm_model.nn.config import DecoderConfig


@pytest.fixture(scope="session")
def tiny_model(repository: Path) -> Callable[[ArtifactStore, Path], Artifact]:
    """tiny_model(store, folder): a random model of 40,000 parameters, as an artifact of the step `base`."""
    from plm_model.families.plm.model import build
    from plm_model.families.plm.tokenizer import Tokenizer
    from plm_model.families.plm.weights import initialise, save_model

    def make(store: ArtifactStore, folder: Path) -> Artifact:
        tokenizer = Tokenizer.from_file(repository / "configs/tokenizers/plm_tiny/tokenizer.json")
        config = PLMConfig(
            vision=VisionConfig(image_size=28, patch_size=14, width=32, layers=1, heads=2, drop_path=0.0),
            decoder=DecoderConfig(
                vocab_size=tokenizer.vocab_size, dim=32, layers=1, heads=2, kv_heads=1, hidden_dim=64, max_seq_len=512
            ),
            image_token_id=tokenizer.image_id,
            processor=ProcessorConfig(vision_input_type="tile", max_num_tiles=1),
        )
        save_model(initialise(build(config), seed=0), config, tokenizer, folder / "model")
        key = StepKey("base")
        with store.create(key) as out:
            out.add_tree(folder / "model")
        artifact = store.find(key)
        assert artifact is not None
        return artifact

    return make
