"""`plm verify`: all sums below the storage root, or of what the last run of one pipeline used."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from components.pipeline.config import PipelineConfig
from components.pipeline.storage import store_of
from components.pipeline.verification import Damaged, keys_below, keys_of, verify
from flows.servers.environment import prepare_environment


def verify_storage(config: PipelineConfig, one_pipeline: bool) -> dict[str, Any]:
    """Print one line for each damaged file and one on what was looked at; returns both."""
    prepare_environment(config)
    store = store_of(config)
    result = verify(store, keys_of(config, store) if one_pipeline else keys_below(store), show)
    print(
        f"{store.root}: {result.artifacts} artifacts, {result.checkpoints} checkpoints, {result.files:,} files, "
        f"{result.bytes / 1e6:,.1f} MB: {len(result.damaged)} damaged"
    )
    if result.damaged:
        print("what is damaged is made anew by the next run that needs it")
    return asdict(result)


def show(damaged: Damaged) -> None:
    print(f"damaged: {damaged.uri} {damaged.reason}", flush=True)
