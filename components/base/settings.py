"""Which model, and the weights that it starts from."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, TypeAdapter, ValidationInfo, field_validator, model_validator

from components.base.partial import partial
from components.settings import KeysOf, LocalPath, Seed, Settings
from plm_model.family import RANDOM, families, package, part
from plm_model.model_directory.description import architecture_of


def architecture_keys(family: str) -> Any:
    """The keys of a family's architecture as a type of which each may be left out."""
    return partial(part(family, "settings").Architecture)


def architectures() -> list[Any]:
    """Those of all families that are installed."""
    return [architecture_keys(family) for family in families()]


class ModelConfig(Settings):
    """Which model, and the weights that it starts from."""

    WITHOUT_EFFECT: ClassVar[frozenset[str]] = frozenset({"tokenizer"})  # the contents of the file count, not its place

    family: str = Field(
        "plm", description="whose architecture, codec and weights: a family of ours, or one that a package brings"
    )
    init: LocalPath = Field(
        RANDOM,
        description="`random`, a model directory in a layout that the family reads, owner/name@commit on the Hugging Face "
        "hub, or the language model's directory that `tower` is put before",
    )
    tower: LocalPath | None = Field(None, description="the .pt of a vision tower, for the first training stage")
    seed: Seed = 0
    tokenizer: LocalPath | None = Field(
        None, description="tokenizer.json, beside the file that names it; default: the one that model.init brings"
    )
    architecture: Annotated[dict[str, Any], KeysOf(architectures)] = Field(
        {},
        description="the whole model where init is random or a tower is given; else what to change of that in model.init",
    )

    @field_validator("family")
    @classmethod
    def _require_family(cls, family: str) -> str:
        package(family)
        return family

    @field_validator("architecture")
    @classmethod
    def _require_known_keys(cls, architecture: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "family" not in info.data:
            return architecture
        return dict(TypeAdapter(architecture_keys(info.data["family"])).validate_python(architecture))

    @model_validator(mode="after")
    def _require_whole_architecture(self) -> ModelConfig:
        if self.init == RANDOM and self.tower:
            raise ValueError("tower is put before the Llama directory that init names; init is `random`")
        if self.init == RANDOM or self.tower:
            architecture_of(self.family, self.architecture)
        return self
