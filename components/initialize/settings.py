"""Which model, and the weights that it starts from."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from components.initialize.partial import partial
from components.settings import LocalPath, Seed, Settings
from plm_model.config import PLMConfig


class ModelConfig(Settings):
    """Which model, and the weights that it starts from."""

    WITHOUT_EFFECT: ClassVar[frozenset[str]] = frozenset({"tokenizer"})  # the contents of the file count, not its place

    family: Literal["plm"] = "plm"
    init: LocalPath = Field(
        "random",
        description="`random`, a checkpoint directory (Meta's, Hugging Face's or our layout), owner/name@commit on the "
        "Hugging Face hub, or the Llama directory that `tower` is put before",
    )
    tower: LocalPath | None = Field(None, description="a Perception Encoder's .pt, for the first training stage")
    seed: Seed = 0
    tokenizer: LocalPath | None = Field(
        None, description="tokenizer.json, beside the file that names it; default: the checkpoint's own"
    )
    architecture: partial(PLMConfig) = Field(  # type: ignore[valid-type]
        {},
        description="the whole model where init is random or a tower is given; else what to change of the checkpoint's",
    )

    @model_validator(mode="after")
    def _require_whole_architecture(self) -> ModelConfig:
        if self.init == "random" and self.tower:
            raise ValueError("tower is put before the Llama directory that init names; init is `random`")
        if self.init == "random" or self.tower:
            PLMConfig.from_dict(self.architecture)
        return self
