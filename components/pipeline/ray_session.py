"""The Ray that the steps of this process work on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from components.pipeline.config import PipelineConfig
from components.processes.local_ray import local_ray
from components.processes.machine import usable_cores
from components.processes.ray_signals import sigterm_as_before


@contextlib.contextmanager
def ray_session(config: PipelineConfig) -> Iterator[None]:
    """A Ray to work on: the cluster that this process already belongs to, or a local one that ends with the block."""
    import ray

    if ray.is_initialized():
        yield
        return
    if "RAY_ADDRESS" not in os.environ:
        with local_ray(config.ray.num_cpus or max(usable_cores(), config.train.workers + 1)):
            yield
        return
    with sigterm_as_before():
        ray.init(log_to_driver=False, configure_logging=False)
    try:
        yield
    finally:
        ray.shutdown()
