"""What the model of an artifact is, without its weights or anything that needs torch."""

from __future__ import annotations

from components.artifacts.artifact import Artifact
from plm_model.family import Codec, Collator, part
from plm_model.model_directory.description import CONFIG, Described, described


def model_of(model: Artifact) -> Described:
    """The family and architecture in a model artifact's `config.json`; ConfigError when they are of no family of ours."""
    return described(model.read_json(CONFIG))


def codec_of(model: Artifact, max_tokens: int | None = None) -> Codec:
    """What encodes records and questions for a model."""
    found = model_of(model)
    codec = part(found.family, "codec")
    places = [model.local(file) for file in codec.FILES]  # not all of the directory: the weights stay where they are
    return codec.open_codec(places[0].parent, found.architecture, max_tokens)


def collator_of(model: Artifact) -> Collator:
    """What makes packs for a model."""
    found = model_of(model)
    return part(found.family, "collator").open_collator(found.architecture)
