"""A training on a Ray cluster of two machines, one of which is taken away: `python -m tests.system.elastic_run FOLDER`.

Prints the state of the last checkpoint as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from components.artifacts.context import StepContext
from components.tracking.runs import SilentTracker
from components.train.checkpoints.checkpoint import newest, read_state
from components.train.folder import TrainingFolder
from components.train.launch.ray import fit
from components.train.settings import TrainConfig
from tests.components.training_set import tiny_config, write_base, write_shards

SETTINGS = TrainConfig(
    steps=1500, packs_per_step=2, pack_tokens=64, checkpoint_every=25, log_every=5, workers=2, min_workers=1
)


def main(folder: Path) -> None:
    inputs = {"shards": write_shards(folder / "shards"), "base": write_base(folder / "base", tiny_config())}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    removed = threading.Event()

    def remove_once(text: str) -> None:
        print(text, file=sys.stderr, flush=True)
        if text.startswith("step") and int(text.split()[1].partition("/")[0]) >= 30 and not removed.is_set():
            removed.set()
            threading.Thread(target=cluster.remove_node, args=(nodes[1], False), daemon=True).start()

    context = StepContext(SilentTracker(), remove_once, folder / "cache", str(folder / "resume"))
    fit(SETTINGS, inputs, TrainingFolder(f"{folder}/resume"), context)
    print(json.dumps({"removed": removed.is_set(), **read_state(newest(f"{folder}/resume/checkpoints") or "")}))
    sys.stdout.flush()
    os._exit(0)  # the machines that are left end with their parent


if __name__ == "__main__":
    main(Path(sys.argv[1]))
