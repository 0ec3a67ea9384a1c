"""Train with Ray Train and FSDP2, from the base model's weights; an interrupted training is resumed.

Everything that can be wrong with the data or the settings is looked at here, before any worker starts.
"""

from __future__ import annotations

import json
import tempfile
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.artifacts.artifact import COPY_BYTES, Artifact, ArtifactWriter
from components.artifacts.code_digest import code_of
from components.artifacts.context import StepContext
from components.artifacts.files import absolute_uri, filesystem, remove
from components.errors import UserError
from components.model_files.settings import model_of
from components.train import interrupted
from components.train.data import rejected
from components.train.effects import FAMILY_PARTS, of_weights
from components.train.folder import PROFILES, TrainingFolder
from components.train.settings import TrainConfig
from plm_model.family import modules

SHOWN_MODULES = 3


def run(given: TrainConfig, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StepContext) -> None:
    """Write `checkpoint/` (sharded, with the optimizer's state), `metrics.jsonl`, `train_state.json`, and what was unusual:
    `anomalies.jsonl` (unsound steps), `rejected.jsonl` (examples).

    Also `profiles/`, if steps were traced. Needs an initialised Ray. Raises UserError for data and settings that do not fit.
    """
    from components.train.data.length import counted_in_steps
    from components.train.launch.ray import fit
    from components.train.preflight import check, rejected_line
    from components.train.watch.signals import remove_touch_files

    began = time.time()
    folder = TrainingFolder(absolute_uri(context.resume_uri))
    if context.fresh:
        remove(folder.uri)
    versions = note(given, inputs, folder, context)
    settings = counted_in_steps(given, inputs["shards"])
    if given.epochs is not None:
        context.progress(f"{given.epochs:g} epochs are {settings.steps} steps")
    left_out = check(settings, inputs["shards"], inputs["base"], settings.workers, folder)
    if left_out:
        context.progress(f"{rejected_line(left_out)}; see {rejected.FILE}")
    replay(folder, context)
    remove_touch_files(folder.uri)
    fit(settings, inputs, folder, context)
    state = publish(folder, settings, out)
    publish_traces(folder, out, context)
    if failed := state.get("failed_checkpoints", 0):
        context.progress(f"trained; {failed} checkpoints on the way could not be written, the last one is whole")
    with out.open(rejected.FILE, "w") as file:
        left_out += rejected.read_rejected(folder.rejected)
        rejected.write_rejected(file, left_out)
    out.counts |= {
        "rejected": len(left_out),
        "steps": state["step"],
        "tokens": state["tokens"],
        "media": state["media"],
        "restarts": state["restarts"],
        "anomalies": len(state["anomalies"]),
        "code_versions": versions,
        "failed_checkpoints": state.get("failed_checkpoints", 0),
        "world_size": state["world_size"],
        "seconds_in_loop": round(state["attempt_seconds"], 3),
        "seconds_around_loop": round(max(time.time() - began - state["attempt_seconds"], 0.0), 3),
    }


def note(settings: TrainConfig, inputs: Mapping[str, Artifact], folder: TrainingFolder, context: StepContext) -> int:
    """Leave beside the checkpoints what this training is; gives how many versions of the code have worked on it."""
    digests = {name: inputs[name].digest for name in interrupted.INPUTS}
    code = code_of("components.train.step", *modules(model_of(inputs["base"]).family, FAMILY_PARTS))
    changed = interrupted.take_notes(folder.uri, context.pipeline, of_weights(settings), digests, code)
    if changed:
        context.progress(f"begun with other code: {', '.join(changed[:SHOWN_MODULES])} changed since")
    versions: int = (interrupted.read(folder.uri, interrupted.NOTES) or {}).get("code_versions", 1)
    return versions


def replay(folder: TrainingFolder, context: StepContext) -> None:
    """Tell the tracker what an interrupted attempt had measured up to the checkpoint that is resumed."""
    from components.train.checkpoints.checkpoint import METRICS, STATE, newest, read_metrics, read_state
    from components.train.checkpoints.sums import damage, newest_sound
    from components.train.measure.metrics_log import record

    def look(folder: str) -> str | None:
        return damage(folder, only=(STATE, METRICS))  # the workers look at all of it

    if found := newest_sound(lambda: newest(folder.checkpoints), look, context.progress):
        for line in read_metrics(found).splitlines():
            record(json.loads(line), context)
        context.progress(f"resuming after step {read_state(found)['step']}")


def publish(training: TrainingFolder, settings: TrainConfig, out: ArtifactWriter) -> dict[str, Any]:
    """Copy the last checkpoint, or the best, into the artifact; returns its state."""
    from components.train.checkpoints.checkpoint import FILES, METRICS, STATE, newest, read_state
    from components.train.checkpoints.retention import best
    from components.train.checkpoints.sums import read_records, set_aside
    from components.train.hooks import ANOMALIES

    checkpoints = training.checkpoints
    folder = newest(checkpoints)
    state: dict[str, Any] = read_state(folder) if folder else {"step": 0}
    if folder is None or state["step"] != settings.steps:
        raise RuntimeError(f"{checkpoints}: the last checkpoint is of step {state['step']}, not {settings.steps}")
    if settings.publish == "best":
        folder = best(checkpoints) or folder
        state = {**state, **{name: read_state(folder)[name] for name in ("step", "loss", "score")}}
    fs, path = filesystem(folder)
    records = read_records(folder)
    for name in sorted(fs.find(path)):
        rel = name[len(path) :].lstrip("/")
        if rel in (STATE, METRICS, FILES):
            continue
        if copy(fs, name, out, f"checkpoint/{rel}") != records.get(rel, {}).get("crc32"):
            set_aside(folder)
            raise UserError(f"{name}: is damaged; run again to resume from the checkpoint before it")
    fs, path = filesystem(newest(checkpoints) or folder)
    copy(fs, f"{path}/{METRICS}", out, METRICS)
    out.write_json("train_state.json", state)
    out.aside |= {METRICS, "train_state.json"}  # they tell of seconds, machines and restarts
    with out.open(ANOMALIES, "w") as file:
        file.write("".join(json.dumps(line) + "\n" for line in state["anomalies"]))
    return state


def publish_traces(folder: TrainingFolder, out: ArtifactWriter, context: StepContext) -> None:
    """Copy what the profiler wrote into the artifact and to the tracker."""
    fs, path = filesystem(folder.profiles)
    for name in sorted(fs.find(path)):
        rel = f"{PROFILES}/{name[len(path) :].lstrip('/')}"
        copy(fs, name, out, rel)
        out.aside.add(rel)
        with tempfile.TemporaryDirectory() as scratch:
            local = Path(scratch) / Path(rel).name
            fs.get_file(name, str(local))
            context.tracker.log_file(local, str(Path(rel).parent))


def copy(fs: Any, source: str, out: ArtifactWriter, rel: str) -> int:
    """Copy a file into the artifact; returns the CRC-32 of what was copied."""
    crc = 0
    with fs.open(source, "rb") as reader, out.open(rel) as writer:
        while chunk := reader.read(COPY_BYTES):
            crc = zlib.crc32(chunk, crc)
            writer.write(chunk)
    return crc
