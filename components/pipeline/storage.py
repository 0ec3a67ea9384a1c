"""The store that a config's section `storage` describes."""

from __future__ import annotations

from components.artifacts.store import ArtifactStore
from components.pipeline.config import PipelineConfig


def store_of(config: PipelineConfig) -> ArtifactStore:
    """The artifacts of a pipeline, with what its unfinished steps resume. UserError for a root that cannot be one."""
    storage = config.storage
    return ArtifactStore(storage.root, storage.cache_dir, storage.resume_root)
